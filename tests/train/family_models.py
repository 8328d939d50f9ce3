"""Writes the tiny random model of a family."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from .families import SHAPE, Family


def write_family_model(family: Family, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """The folder, with a model whose vocabulary is that of the tokenizer."""
    tokens = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = {} if family.kind == "gpt2" else SHAPE
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.kind, **tokens | shape | family.config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
