"""Loads tokenizers: of a base model without its weights, or from the folder of a model or adapter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import InputError
from finetune.hub.snapshots import Need
from finetune.models.find import BaseModel, find_base
from finetune.models.presets import PLAIN_TEMPLATE, find_preset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def find_tokenizer(model: str, *, fetch: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a preset, a Hub id or a folder, with the chat template that training would use.

    Weights are never downloaded. For `fetch` and for exceptions, see `find_base` and `load_tokenizer`.
    """
    base = find_base(model, need=Need.TOKENIZER, fetch=fetch)
    return load_tokenizer(base.folder, base)


def load_tokenizer(folder: Path, base: BaseModel) -> PreTrainedTokenizerBase:
    """Load a tokenizer and make sure that it has a chat template and a padding token."""
    from transformers import AutoTokenizer  # here: `show` counts words if there is no tokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(f"The tokenizer in {folder} cannot be loaded: {str(error).splitlines()[0]}") from None
    if tokenizer.chat_template is None:
        preset = find_preset(base.name)
        tokenizer.chat_template = (preset.chat_template if preset else None) or PLAIN_TEMPLATE
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # safe: labels are built before padding, and padding is masked
    tokenizer.padding_side = "right"
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, *, is_encoder: bool) -> None:
    """Write a tokenizer for a model; that of an encoder without a chat template, which only the corpus needs."""
    if is_encoder:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
