"""The answers of an encoder: the probability of each label, or the span of the context that answers a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from finetune.models.encoder_inputs import EncoderInput
from finetune.models.heads import Head
from finetune.models.load import LoadedModel
from finetune.scoring.inputs import RowsCallback

THRESHOLD = 0.5  # the probability from which a row has a label, if it may have several
LONGEST_ANSWER = 64  # tokens of an extracted answer


@dataclass(frozen=True)
class Excerpt:
    """An answer in the words of the context: `start` and `end` count its characters, `probability` is that of both ends."""

    text: str
    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class Labelling:
    """The labels of a text, none, one or several, and the probability of each label that the head knows."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]


Prediction = Labelling | Excerpt


def predict(
    loaded: LoadedModel,
    inputs: Sequence[EncoderInput],
    contexts: Sequence[str | None],
    *,
    batch_size: int,
    on_rows: RowsCallback | None = None,
) -> list[Prediction]:
    """What the head says about each input: its labels, or the answer that its context contains."""
    head = loaded.head
    assert head is not None
    if head.kind == "extraction":
        texts = [context or "" for context in contexts]
        return [*extract_answers(loaded, inputs, texts, batch_size=batch_size, on_rows=on_rows)]
    rows = label_probabilities(loaded, inputs, batch_size=batch_size, on_rows=on_rows)
    return [Labelling(pick_labels(head, row), dict(zip(head.labels, row, strict=True))) for row in rows]


def label_probabilities(
    loaded: LoadedModel, inputs: Sequence[EncoderInput], *, batch_size: int, on_rows: RowsCallback | None = None
) -> list[list[float]]:
    """The probability of each label of the head, in its order; of several labels, each has its own."""
    assert loaded.head is not None
    several = loaded.head.kind == "multi-label"
    rows: list[list[float]] = [[] for _ in inputs]
    for members, output in _run(loaded, inputs, batch_size, on_rows):
        logits = output.logits.double()
        shares = logits.sigmoid() if several else logits.softmax(-1)
        for number, row in zip(members, shares.tolist(), strict=True):
            rows[number] = row
    return rows


def prediction_logits(loaded: LoadedModel, row: EncoderInput) -> Tensor:
    """The logits of each decision about a row: (decisions, outcomes).

    One decision among the labels, one for each of several labels, or two: where in the context an answer starts and ends.
    """
    assert loaded.head is not None
    ((_, output),) = _run(loaded, [row], 1, None)
    if loaded.head.kind == "extraction":
        inside = [number for number, place in enumerate(row.context) if place is not None]
        return torch.cat([output.start_logits, output.end_logits])[:, inside]
    logits: Tensor = output.logits
    return torch.stack([torch.zeros_like(logits[0]), logits[0]], 1) if loaded.head.kind == "multi-label" else logits


def pick_labels(head: Head, probabilities: Sequence[float]) -> tuple[str, ...]:
    """The most likely label, or of several labels all that are likelier than not."""
    if head.kind == "multi-label":
        return tuple(label for label, share in zip(head.labels, probabilities, strict=True) if share >= THRESHOLD)
    return (head.labels[probabilities.index(max(probabilities))],)


def extract_answers(
    loaded: LoadedModel,
    inputs: Sequence[EncoderInput],
    contexts: Sequence[str],
    *,
    batch_size: int,
    on_rows: RowsCallback | None = None,
) -> list[Excerpt]:
    """The most likely span of each context, at most `LONGEST_ANSWER` tokens long."""
    answers = [Excerpt("", 0, 0, 0.0) for _ in inputs]
    for members, output in _run(loaded, inputs, batch_size, on_rows):
        outside = torch.full(output.start_logits.shape, -torch.inf, dtype=torch.float64)
        for row, number in enumerate(members):
            for token, place in enumerate(inputs[number].context):
                if place is not None:
                    outside[row, token] = 0.0
        starts, ends = (
            (logits.double().cpu() + outside).log_softmax(-1) for logits in (output.start_logits, output.end_logits)
        )
        for row, number in enumerate(members):
            first, last, score = _best_span(starts[row], ends[row])
            begin, end = inputs[number].context[first], inputs[number].context[last]
            if begin is not None and end is not None:  # else no token of the context was read
                text = contexts[number][begin[0] : end[1]]
                answers[number] = Excerpt(text, begin[0], end[1], float(score.exp()))
    return answers


def embed(loaded: LoadedModel, inputs: Sequence[EncoderInput], *, batch_size: int) -> list[tuple[float, ...]]:
    """A vector of length 1 for each input: the mean of the last hidden states of its tokens."""
    rows: list[tuple[float, ...]] = [() for _ in inputs]
    for members, output in _run(loaded, inputs, batch_size, None, output_hidden_states=True):
        states = output.hidden_states[-1].float()
        for row, number in enumerate(members):
            mean = states[row, : len(inputs[number].ids)].mean(0)
            rows[number] = tuple(functional.normalize(mean, dim=0).tolist())
    return rows


def _best_span(starts: Tensor, ends: Tensor) -> tuple[int, int, Tensor]:
    """First token, last token and log-probability of the likeliest span, given those of its ends."""
    best = (0, 0, starts[0] + ends[0])
    for width in range(min(LONGEST_ANSWER, len(starts))):
        scores = starts[: len(starts) - width] + ends[width:]
        first = int(scores.argmax())
        if scores[first] > best[2]:
            best = (first, first + width, scores[first])
    return best


def _run(
    loaded: LoadedModel,
    inputs: Sequence[EncoderInput],
    batch_size: int,
    on_rows: RowsCallback | None,
    **flags: bool,
) -> Iterator[tuple[list[int], Any]]:
    """The numbers of the rows of each batch and its output, longest first: batches then need little padding."""
    order = sorted(range(len(inputs)), key=lambda number: (-len(inputs[number].ids), number))
    for start in range(0, len(order), batch_size):
        members = order[start : start + batch_size]
        batch = _pad(loaded, [inputs[number] for number in members])
        with torch.inference_mode():
            output = loaded.model(**batch, **flags)
        yield members, output
        if on_rows:
            on_rows(len(members))


def _pad(loaded: LoadedModel, rows: Sequence[EncoderInput]) -> dict[str, Tensor]:
    """Token ids, attention mask and, if the model reads them, token types: (rows, tokens), padded on the right."""
    width = max(len(row.ids) for row in rows)

    def pad(values: Sequence[Sequence[int]], filler: int) -> Tensor:
        padded = [[*row, *[filler] * (width - len(row))] for row in values]
        return torch.tensor(padded, device=loaded.model.device)

    ids = [row.ids for row in rows]
    batch = {
        "input_ids": pad(ids, int(loaded.tokenizer.pad_token_id)),
        "attention_mask": pad([[1] * len(row) for row in ids], 0),
    }
    if rows[0].token_types:
        batch["token_type_ids"] = pad([row.token_types for row in rows], 0)
    return batch
