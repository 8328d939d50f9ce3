from __future__ import annotations

import logging
import os

import pytest

from finetune.hub.settings import configure_libraries


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
def test_xet_is_off_if_the_hub_has_none(monkeypatch: pytest.MonkeyPatch, endpoint: str | None, disabled: bool) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)

    configure_libraries()

    assert (os.environ.get("HF_HUB_DISABLE_XET") == "1") is disabled


def test_library_set_up_without_a_console_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    configure_libraries()

    logging.getLogger("bitsandbytes.backends.cpu.ops").warning("Failed to load CPU gemm_4bit_forward")

    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("mode", "then"), [("online", "offline"), ("disabled", "disabled")])
def test_offline_takes_precedence_over_a_tracker_that_is_online(
    monkeypatch: pytest.MonkeyPatch, mode: str, then: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # to be restored
    configure_libraries(offline=True)
    assert os.environ["WANDB_MODE"] == then
