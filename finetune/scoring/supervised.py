"""What a causal language model says about the answers of rows, token by token, without keeping logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.models.chat_template import Rendering
from finetune.models.load import LoadedModel
from finetune.scoring.inputs import RowsCallback, sort_batches
from finetune.scoring.prefix import Prefix, compute_prefix, pad_behind

MOST_LOGITS = 2**26  # in memory at once while answers are scored: 256 MiB in float32
CHUNK = 64  # tokens whose probabilities are in memory at once


@dataclass(frozen=True)
class TokenScores:
    """What a model says about each supervised token of a row that follows another token; all are (tokens,).

    Args:
        logprobs: log-probability of the token, in nats.
        standard: the log-probability minus its mean under the model's own distribution, in standard deviations of it.
        wrong: whether the model finds another token more likely.
    """

    logprobs: NDArray[np.float32]
    standard: NDArray[np.float32]
    wrong: NDArray[np.bool_]


def score_tokens(
    loaded: LoadedModel, rows: Sequence[Rendering], *, batch_size: int, on_rows: RowsCallback | None = None
) -> list[TokenScores]:
    """Score the supervised tokens of rows, each of which has one; what all rows begin with is computed once."""
    prompts = [row.ids[: row.supervised.index(True, 1)] for row in rows]
    prefix = compute_prefix(loaded, prompts, max((len(row.ids) for row in rows), default=0))
    scores: dict[int, TokenScores] = {}
    for batch in sort_batches([len(row.ids) for row in rows], batch_size):
        chosen = [rows[number] for number in batch]
        scores |= zip(batch, (_score(*one) for one in supervised_logits(loaded, chosen, prefix)), strict=True)
        if on_rows:
            on_rows(len(batch))
    return [scores[number] for number in range(len(rows))]


def supervised_logits(
    loaded: LoadedModel, rows: Sequence[Rendering], prefix: Prefix | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each row the logits that predict its supervised tokens, (tokens, vocabulary), and these tokens, (tokens,).

    The rows share forward passes of at most `MOST_LOGITS` logits.
    """
    size = max(1, MOST_LOGITS // (_longest(rows) * loaded.model.get_output_embeddings().weight.shape[0]))
    for start in range(0, len(rows), size):
        yield from _pass(loaded, rows[start : start + size], prefix)


def _longest(rows: Sequence[Rendering]) -> int:
    """The number of tokens from the first supervised one to the end, of the row that has most; the first is never predicted."""
    return max(len(row.ids) - row.supervised.index(True, 1) for row in rows)


def _pass(loaded: LoadedModel, rows: Sequence[Rendering], prefix: Prefix | None) -> Iterator[tuple[Tensor, Tensor]]:
    longest = _longest(rows)
    ids, mask, positions = pad_behind(loaded, prefix, [row.ids for row in rows])
    with torch.inference_mode():
        output = loaded.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=prefix.repeat(len(rows)) if prefix else None,
            use_cache=prefix is not None,
            logits_to_keep=longest + 1,
        )
    for row, logits in zip(rows, output.logits[:, :-1], strict=True):
        supervised = torch.tensor((False, *row.supervised[1:])[-longest:], device=ids.device)
        targets = torch.tensor(row.ids[-longest:], device=ids.device)[supervised]
        yield logits[-len(supervised) :][supervised], targets


def _score(logits: Tensor, targets: Tensor) -> TokenScores:
    parts = []
    for chunk, tokens in zip(logits.split(CHUNK), targets.split(CHUNK), strict=True):
        logprobs = chunk.float().log_softmax(-1)
        weights = logprobs.exp()
        mean = (weights * logprobs).sum(-1)
        variance = (weights * (logprobs - mean[:, None]) ** 2).sum(-1)
        chosen = logprobs.gather(-1, tokens[:, None])[:, 0]
        # A model that is certain has no spread: where the token is the certain one, the difference is 0, too.
        standard = (chosen - mean) / variance.sqrt().clamp(min=1e-6)
        parts.append((chosen.cpu(), standard.cpu(), (logprobs.argmax(-1) != tokens).cpu()))
    logprobs, standards, wrong = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return TokenScores(logprobs, standards, wrong)
