"""Scrubbers in one line, with a secret of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune.recipe.scrub import Policy
from finetune.scrub import Scrubber, make_rules
from finetune.scrub.secret import own_secret
from finetune.scrub.surrogates import _days

Replace = Callable[..., str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the secret, empty at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    own_secret.cache_clear()
    _days.cache_clear()
    yield tmp_path / "cache" / "slmtune"
    own_secret.cache_clear()
    _days.cache_clear()


@pytest.fixture
def replace(cache: Path) -> Replace:
    """`replace(text, policy, document)` replaces all personal data in a text."""

    def run(text: str, policy: Policy = "surrogate", document: str = "") -> str:
        rules = make_rules(None, policy=policy, find="all", otherwise="all")
        return Scrubber(rules).scrub(text, Counter(), document)

    return run
