"""What a causal language model reads: the prompts of rows, longest first, as padded batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from finetune.models.chat_template import render_prompt
from finetune.models.load import LoadedModel
from finetune.records import Example

RowsCallback = Callable[[int], None]  # called after each batch with the number of finished rows


def sort_batches(
    loaded: LoadedModel, examples: Sequence[Example], members: Sequence[int], size: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """Rows with the ids of their prompts, longest first: batches need little padding, and memory peaks at the start."""
    prompts = [(n, render_prompt(loaded.tokenizer, examples[n].prompt, examples[n].tools)) for n in members]
    prompts.sort(key=lambda item: (-len(item[1]), item[0]))
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]


def pad_left(loaded: LoadedModel, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (prompts, tokens), padded on the left so that all prompts end together."""
    width = max(len(prompt) for prompt in prompts)
    pad = loaded.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(loaded.model.device), mask.to(loaded.model.device)
