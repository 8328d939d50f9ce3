"""Examples → what an encoder reads and what it should answer: a class, several classes or a span of the context."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.errors import InputError
from finetune.models.encoder_inputs import EncoderInput, encode
from finetune.models.heads import Head
from finetune.records import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class LabelledRow:
    """Token ids of one row and their segments, (tokens,), and its target."""

    tokens: NDArray[np.int32]
    token_types: NDArray[np.int8]  # zeros if the tokenizer gives none
    target: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Encoded rows, concatenated in flat arrays, with their targets and the number of tokens of the longest before truncation.

    A target is (1,) the number of a class, (classes,) zeros and ones, or (4,) the first and last token of the answer and of
    the context.
    """

    ids: Sequence[str]  # of the examples
    flat_tokens: NDArray[np.int32]
    flat_types: NDArray[np.int8]
    targets: NDArray[np.int64]  # (rows, width of a target)
    ends: NDArray[np.int64]  # where each row ends in the flat arrays
    truncated: int
    longest: int

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> LabelledRow:
        start, end = int(self.ends[number - 1]) if number else 0, int(self.ends[number])
        return LabelledRow(self.flat_tokens[start:end], self.flat_types[start:end], self.targets[number])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, after truncation."""
        return np.diff(self.ends, prepend=0)

    @property
    def supervised(self) -> NDArray[np.int64]:
        """How much of each row carries loss: its one answer."""
        return np.ones(len(self), dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokens and the targets."""
        digest = hashlib.sha256()
        for part in (self.ends, self.flat_tokens, self.flat_types, self.targets):
            digest.update(part.data)
        return digest.hexdigest()

    @cached_property
    def largest_token(self) -> int:
        """The largest of the token ids."""
        return int(self.flat_tokens.max())

    @property
    def common_prefix(self) -> int:
        """0: what an encoder computes for a token depends on all others, so rows share nothing."""
        return 0


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], head: Head, max_length: int
) -> LabelledRows:
    """Encode every row, truncated to `max_length` tokens; the rows are those that `find_head` has checked.

    Raises:
        InputError: the answer of a row lies beyond `max_length`; names the row by its id.
    """
    ids: list[str] = []
    tokens, types, ends, targets = array("i"), array("b"), array("q"), array("q")
    truncated = longest = 0
    for example in examples:
        row = encode(tokenizer, example, max_length)
        longest, truncated = max(longest, row.length), truncated + row.truncated
        ids.append(example.id)
        tokens.extend(row.ids)
        types.extend(row.token_types or bytes(len(row.ids)))
        ends.append(len(tokens))
        targets.extend(_target(example, row, head, max_length))
    return LabelledRows(
        ids,
        np.asarray(tokens, dtype=np.int32),
        np.asarray(types, dtype=np.int8),
        np.asarray(targets, dtype=np.int64).reshape(len(ids), len(targets) // max(len(ids), 1)),
        np.asarray(ends, dtype=np.int64),
        truncated,
        longest,
    )


def _target(example: Example, row: EncoderInput, head: Head, max_length: int) -> Sequence[int]:
    if head.kind == "classification":
        return [head.labels.index(str(example.label))]
    if head.kind == "multi-label":
        return [int(label in (example.labels or ())) for label in head.labels]
    start = str(example.context).find(example.answer.strip())
    span = row.find_tokens((start, start + len(example.answer.strip())))
    context = [number for number, place in enumerate(row.context) if place is not None]
    if span is None:
        raise InputError(
            f"Row {example.id} has no answer within {max_length} tokens: its context is cut before the answer ends, so "
            "nothing could be learnt from it. Raise --max-length, or shorten the row"
        )
    return [*span, context[0], context[-1]]
