"""A tiny adapter on its base model."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.artifacts import Adapter
from finetune.models.load import LoadedModel, load_adapter


@pytest.fixture(scope="package")
def loaded(tiny_adapter: Path) -> LoadedModel:
    return load_adapter(Adapter.open(tiny_adapter))
