"""Models in memory: what is refused before weights are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.errors import InputError
from finetune.models.load import load_base
from finetune.recipe import AdapterRecipe


def test_folder_of_an_encoder_is_refused_with_what_can_be_trained(tmp_path: Path) -> None:
    config = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match=r"not a causal language model \(BertForMaskedLM\).*smollm2-135m, "):
        load_base(tmp_path, AdapterRecipe())
