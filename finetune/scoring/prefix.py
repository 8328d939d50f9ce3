"""What all prompts begin with, computed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from finetune.models.load import LoadedModel
from finetune.models.structure import base_model, find_state
from finetune.scoring.inputs import count_common, pad_left


@dataclass(frozen=True)
class Prefix:
    """The first tokens of all prompts, and the cache of what the model computed for them: that of one row."""

    tokens: tuple[int, ...]
    cache: Any

    def repeat(self, rows: int) -> Any:
        """A cache of its own for as many rows."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache


def compute_prefix(loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], longest: int) -> Prefix | None:
    """What all prompts begin with; None if that is little, or the model cannot go on behind it.

    A sliding window counts the padding between the prefix and the rest of a row. `longest` is the length of the longest row
    in tokens, with whatever follows its prompt.
    """
    model = base_model(loaded.model)
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    common = count_common(prompts) if prompts else 0
    if not common or find_state(model) or not model._supports_attention_backend or (window and longest > window):
        return None
    with torch.inference_mode():
        ids = torch.tensor([prompts[0][:common]], device=loaded.model.device)
        output = loaded.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    return Prefix(prompts[0][:common], output.past_key_values)


def pad_behind(
    loaded: LoadedModel, prefix: Prefix | None, rows: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids after the prefix, the attention mask with it, and positions: (rows, tokens)."""
    known = len(prefix.tokens) if prefix else 0
    ids, mask = pad_left(loaded, [row[known:] for row in rows])
    mask = torch.cat([mask.new_ones(len(mask), known), mask], 1)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)[:, known:]
