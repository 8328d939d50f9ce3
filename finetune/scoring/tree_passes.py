"""Prompts, each with a tree of answers, in as few forward passes as possible: what all prompts begin with is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.models.load import LoadedModel
from finetune.models.structure import attention_of, base_model
from finetune.scoring.inputs import count_common
from finetune.scoring.tree_attention import TREE, Layout, lay_out, register
from finetune.scoring.trie import ROOT, Trie

MOST_LOGITS = 2**25  # in memory at once: 128 MiB in float32
MOST_TOKENS = 4096  # of a pass, which bounds its activations; more make matrix products no faster
CHUNK = 64  # positions whose logits are summed at once

States = dict[nn.Module, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TreeRow:
    """The tokens of a prompt, and the answers to it."""

    prompt: tuple[int, ...]
    trie: Trie

    def __len__(self) -> int:
        return len(self.prompt) + len(self.trie.inner)


def score_tries(
    loaded: LoadedModel, rows: Sequence[TreeRow], *, batch_size: int
) -> Iterator[list[tuple[int, list[float]]]]:
    """The log-probabilities, in nats, of the nodes of each row's tree but the root, with the row's number, pass by pass."""
    register()
    prefix = count_common([row.prompt for row in rows])
    vocabulary = loaded.model.get_output_embeddings().weight.shape[0]
    states: States = {}
    if prefix:
        _compute_prefix(loaded, rows[0].prompt[:prefix], states)
    for numbers in _divide(rows, prefix, batch_size, vocabulary):
        batch = [rows[number] for number in numbers]
        yield list(zip(numbers, _score(loaded, batch, prefix, states), strict=True))


def _divide(rows: Sequence[TreeRow], prefix: int, batch_size: int, vocabulary: int) -> Iterator[list[int]]:
    """The numbers of the rows of each pass, longest first: memory peaks at the start."""
    batch: list[int] = []
    tokens = logits = 0
    for number in sorted(range(len(rows)), key=lambda number: (-len(rows[number]), number)):
        row = rows[number]
        tokens += len(row) - prefix
        logits += (1 + len(row.trie.inner)) * vocabulary
        if batch and (len(batch) == batch_size or tokens > MOST_TOKENS or logits > MOST_LOGITS):
            yield batch
            batch, tokens, logits = [], len(row) - prefix, (1 + len(row.trie.inner)) * vocabulary
        batch.append(number)
    if batch:
        yield batch


def _compute_prefix(loaded: LoadedModel, prefix: Sequence[int], states: States) -> None:
    device = loaded.model.device
    whole = (np.tri(len(prefix), dtype=np.bool_), np.arange(len(prefix)))
    _run(loaded, list(prefix), whole[1], [0], Layout(lay_out([whole], device), 0, states, keep=True))


def _score(loaded: LoadedModel, rows: Sequence[TreeRow], prefix: int, states: States) -> list[list[float]]:
    """The log-probabilities of the nodes of each row's tree, in one pass."""
    tokens: list[int] = []
    kept: list[int] = []  # positions that predict nodes: the last of each prompt, and the inner nodes
    slots: list[NDArray[np.int64]] = []  # for each node of a row, which of the kept positions predicts it
    for row in rows:
        slots.append(np.array(row.trie.slots) + len(kept))
        tokens += [*row.prompt[prefix:], *(row.trie.tokens[node] for node in row.trie.inner)]
        first = len(tokens) - len(row.trie.inner) - 1
        kept += range(first, len(tokens))
    places = [_place(row, prefix) for row in rows]
    layout = Layout(lay_out(places, loaded.model.device), prefix, states)
    logits = _run(loaded, tokens, np.concatenate([positions for _, positions in places]), kept, layout)
    nodes = [token for row in rows for token in row.trie.tokens[ROOT + 1 :]]
    logprobs = iter(_pick(logits, np.concatenate(slots), nodes))
    return [[next(logprobs) for _ in slots[number]] for number in range(len(rows))]


def _place(row: TreeRow, prefix: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of its own tokens after the prefix each token of a row sees, and their positions in the prompt or branch."""
    own, tree = len(row.prompt) - prefix, len(row.trie.inner)
    sees = np.tri(own + tree, dtype=np.bool_)
    sees[own:, own:] = row.trie.visible
    depths = [len(row.prompt) - 1 + row.trie.depths[node] for node in row.trie.inner]
    return sees, np.concatenate([np.arange(prefix, len(row.prompt)), np.array(depths, np.int64)])


def _run(
    loaded: LoadedModel, tokens: Sequence[int], positions: NDArray[np.int64], kept: Sequence[int], layout: Layout
) -> Tensor:
    """The logits at the kept positions of a packed sequence: (kept, vocabulary)."""
    device = loaded.model.device
    with torch.inference_mode(), attention_of(base_model(loaded.model), TREE):
        output: Any = loaded.model(
            input_ids=torch.tensor([tokens], device=device),
            position_ids=torch.from_numpy(positions)[None].to(device),
            use_cache=False,
            logits_to_keep=torch.tensor(kept, device=device),
            layout=layout,
        )
    logits: Tensor = output.logits[0]
    return logits


def _pick(logits: Tensor, slots: NDArray[np.int64], nodes: Sequence[int]) -> list[float]:
    """The log-probability of each node at its slot; normalised in chunks, so that logits are never copied whole."""
    sums = torch.cat([chunk.float().logsumexp(-1) for chunk in logits.split(CHUNK)])
    places = torch.from_numpy(slots).to(logits.device)
    chosen = logits[places, torch.tensor(nodes, device=logits.device)].float()
    result: list[float] = (chosen - sums[places]).tolist()
    return result
