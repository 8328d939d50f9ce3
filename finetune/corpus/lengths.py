"""Measures the length of rows: in tokens of a base model, or in words if its tokenizer is not available."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from finetune.models.chat_template import render_conversations
from finetune.records import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LIMITS = (512, 1024, 2048)  # common values of --max-length
BINS = 12  # about as many bars as a reader takes in at a glance
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Bin:
    """Rows with a length from `low` to `high`, inclusive."""

    low: int
    high: int
    rows: int


@dataclass(frozen=True)
class Lengths:
    """Lengths of `measured` rows drawn from `rows`. `above` is the share of rows longer than each of `LIMITS`.

    `median` and `p95` are nearest ranks, that is, lengths of actual rows. `supervised_share` is the share of all tokens or
    words that belong to answers and carry loss.
    """

    unit: Literal["tokens", "words"]
    tokenizer: str | None  # the base model's name; None for words
    measured: int
    rows: int
    min: int
    median: int
    p95: int
    max: int
    above: Mapping[int, float]
    supervised_share: float
    histogram: tuple[Bin, ...]


LengthFunction = Callable[[Example], tuple[int, int]]  # the length of a row, and the part of it that carries loss


def token_length(tokenizer: PreTrainedTokenizerBase) -> LengthFunction:
    """Measure with the renderer of training, including the chat template and end-of-turn tokens.

    A pair is as long as the longer of its conversations.
    """

    def measure(example: Example) -> tuple[int, int]:
        return max((len(each.ids), sum(each.supervised)) for each in render_conversations(tokenizer, example))

    return measure


def count_words(example: Example) -> tuple[int, int]:
    """Words of a row and words of its answers, separated by white space; see `token_length`."""
    start = len(example.prompt) if example.task == "preference" else 0
    return max(_count_words(messages, start) for messages in example.conversations)


def _count_words(messages: Sequence[Message], start: int) -> tuple[int, int]:
    counts = [len(WORD.findall(turn.text)) for turn in messages]
    answers = [turn.role == "assistant" and number >= start for number, turn in enumerate(messages)]
    return sum(counts), sum(count for count, is_answer in zip(counts, answers, strict=True) if is_answer)


def measure_rows(
    examples: Iterable[Example],
    measure: LengthFunction,
    *,
    rows: int,
    unit: Literal["tokens", "words"],
    tokenizer: str | None,
) -> Lengths | None:
    """Measure every example; None if there are no examples. Keeps one count per distinct length, but no rows."""
    lengths: Counter[int] = Counter()
    supervised = 0
    for example in examples:
        length, answers = measure(example)
        lengths[length] += 1
        supervised += answers
    measured = lengths.total()
    if not measured:
        return None
    units = sum(length * count for length, count in lengths.items())
    return Lengths(
        unit=unit,
        tokenizer=tokenizer,
        measured=measured,
        rows=rows,
        min=min(lengths),
        median=_rank(lengths, 0.5),
        p95=_rank(lengths, 0.95),
        max=max(lengths),
        above={limit: sum(count for length, count in lengths.items() if length > limit) / measured for limit in LIMITS},
        supervised_share=supervised / units if units else 0.0,
        histogram=histogram(lengths),
    )


def histogram(lengths: Mapping[int, int]) -> tuple[Bin, ...]:
    """Bins of equal, round width up to about the 95th percentile, and one bin for the long tail, if there is one.

    `lengths` maps a length to its number of rows.
    """
    if not lengths:
        return ()
    longest, step = max(lengths), _round_step(_rank(lengths, 0.95) / BINS)
    full = max(1, math.ceil(_rank(lengths, 0.95) / step))
    counts = [0] * full
    tail = 0
    for length, rows in lengths.items():
        number = max(length - 1, 0) // step  # the first bin includes 0
        if number < full:
            counts[number] += rows
        else:
            tail += rows
    bins = [Bin(number * step + 1 if number else 0, (number + 1) * step, rows) for number, rows in enumerate(counts)]
    return (*bins, Bin(full * step + 1, longest, tail)) if tail else tuple(bins)


def _rank(lengths: Mapping[int, int], share: float) -> int:
    """The smallest length that at least `share` of the rows do not exceed."""
    rank, rows = math.ceil(share * sum(lengths.values())), 0
    for length in sorted(lengths):
        rows += lengths[length]
        if rows >= rank:
            return length
    return max(lengths)


def _round_step(width: float) -> int:
    """Round up to 1, 2 or 5 times a power of ten."""
    power: int = 10 ** max(0, math.floor(math.log10(max(width, 1))))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= width)
