"""Checks, before weights are loaded, that a base model can be trained on these rows with these settings."""

from __future__ import annotations

from finetune.errors import InputError
from finetune.models.config import read_config, vocabulary_of
from finetune.models.find import BaseModel
from finetune.models.heads import Head
from finetune.recipe import AdapterRecipe
from finetune.train.adapter_checks import check_adapter
from finetune.train.batches.rows import Rows


def check_model(base: BaseModel, recipe: AdapterRecipe, rows: Rows, head: Head | None = None) -> None:
    """Refuse an adapter that the model cannot have, and tokens that it has no embedding for.

    Raises:
        InputError: names the setting, or the largest token id.
    """
    check_adapter(base.folder, recipe, head)
    size, largest = vocabulary_of(read_config(base.folder)), rows.largest_token
    if size is not None and largest >= size:
        raise InputError(
            f"The tokenizer of {base.name} makes token ids up to {largest}, but the model has embeddings for {size} tokens "
            "only (vocab_size in its config.json). Use the tokenizer that belongs to the model, or a model whose embeddings "
            "were extended together with its tokenizer"
        )
