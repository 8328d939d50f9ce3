"""What a causal language model reads: the prompts of rows, longest first, as padded batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from finetune.models.chat_template import render_prompt
from finetune.models.load import LoadedModel
from finetune.records import Example, count_alike

SHORTEST_PREFIX = 8  # tokens that all prompts begin with; fewer are not worth a pass of their own
RowsCallback = Callable[[int], None]  # called after each batch with the number of finished rows


def render_prompts(loaded: LoadedModel, examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """The token ids of each row's prompt, up to the start of the answer."""
    return [tuple(render_prompt(loaded.tokenizer, example.prompt, example.tools)) for example in examples]


def count_common(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all prompts begin with, if they are worth a pass of their own; one of each prompt is left."""
    common = min(count_alike(min(prompts), max(prompts)), min(map(len, prompts)) - 1)
    return common if len(prompts) > 1 and common >= SHORTEST_PREFIX else 0


def sort_batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """The numbers of rows, longest first: batches need little padding, and memory peaks at the start."""
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def pad_left(loaded: LoadedModel, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (prompts, tokens), padded on the left so that all prompts end together."""
    width = max(len(prompt) for prompt in prompts)
    pad = loaded.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + [*prompt] for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(loaded.model.device), mask.to(loaded.model.device)
