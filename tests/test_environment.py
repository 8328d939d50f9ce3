from __future__ import annotations

import os

import pytest

from finetune.environment import settle


@pytest.mark.parametrize(
    ("endpoint", "disabled"),
    [
        (None, False),
        ("https://huggingface.co", False),
        ("https://hub-ci.huggingface.co/", False),
        ("http://127.0.0.1:8080", True),
        ("https://huggingface.co.example.org", True),
    ],
)
def test_xet_is_off_where_the_hub_has_none(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, disabled: bool
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)

    settle()

    assert (os.environ.get("HF_HUB_DISABLE_XET") == "1") is disabled
