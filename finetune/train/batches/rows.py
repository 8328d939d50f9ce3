"""Examples → token ids and loss masks, tokenised once and truncated to the maximum length."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.errors import InputError
from finetune.models.chat_template import Rendering, render_conversations
from finetune.records import Example
from finetune.train.batches.prefixes import blocks, count_alike, count_shareable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


SHORTEST_PREFIX = 8  # tokens; a shorter common prefix is not worth its own attention call


class Rows(Protocol):
    """The rows of a split, encoded, in flat arrays."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids of their examples."""

    @property
    def flat_tokens(self) -> NDArray[np.int32]:
        """The tokens of all rows."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row, after truncation."""

    @property
    def supervised(self) -> NDArray[np.int64]:
        """How much of each row carries loss: tokens, or its one label or answer."""

    @property
    def truncated(self) -> int:
        """Number of rows that were truncated."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row before truncation."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of tokens and targets."""

    @property
    def largest_token(self) -> int:
        """The largest of the token ids."""

    @property
    def common_prefix(self) -> int:
        """Length of the prefix that all rows share and a batch computes once, in tokens."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Any: ...


@dataclass(frozen=True, eq=False)
class TokenRow:
    """Token ids of one conversation, (tokens,), and which of them carry loss."""

    tokens: NDArray[np.int32]
    supervised: NDArray[np.bool_]

    @property
    def answer_tokens(self) -> int:
        """Number of tokens whose likelihood is learnt: the supervised ones that follow another token."""
        return int(self.supervised[1:].sum())

    @property
    def shareable(self) -> int:
        """Number of tokens that may be shared: those before the position that predicts the first supervised token."""
        return int(np.argmax(self.supervised[1:]))

    def count_common_prefix(self, other: TokenRow) -> int:
        """Length of the longest common prefix of both rows, in tokens."""
        length = min(len(self.tokens), len(other.tokens))
        different = np.flatnonzero(self.tokens[:length] != other.tokens[:length])
        return int(different[0]) if len(different) else length


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rendered rows, concatenated in flat arrays of 5 bytes per token, with their lengths before truncation.

    A row is one conversation; a pair of answers is two, the preferred one first.
    """

    ids: Sequence[str]  # of the examples
    flat_tokens: NDArray[np.int32]
    flat_supervised: NDArray[np.bool_]
    ends: NDArray[np.int64]  # where each conversation ends in the flat arrays
    truncated: int  # rows
    longest: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def are_pairs(self) -> bool:
        """Whether each row is a pair of answers."""
        return len(self.ends) > len(self.ids)

    def conversations(self, number: int) -> list[TokenRow]:
        """The conversations of a row."""
        each = len(self.ends) // len(self.ids)
        return [self[each * number + place] for place in range(each)]

    def __getitem__(self, number: int) -> TokenRow:
        start, end = int(self.ends[number - 1]) if number else 0, int(self.ends[number])
        return TokenRow(self.flat_tokens[start:end], self.flat_supervised[start:end])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each conversation, after truncation."""
        return np.diff(self.ends, prepend=0)

    @cached_property
    def supervised(self) -> NDArray[np.int64]:
        """Tokens of each row that carry loss."""
        return np.add.reduceat(self.flat_supervised, self.ends - self.lengths, dtype=np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokens and loss masks that the tokenizer and its chat template produced."""
        digest = hashlib.sha256()
        for part in (self.ends, self.flat_tokens, self.flat_supervised):
            digest.update(part.data)
        return digest.hexdigest()

    @cached_property
    def largest_token(self) -> int:
        """The largest of the token ids."""
        return int(self.flat_tokens.max())

    @cached_property
    def prompts(self) -> NDArray[np.int64]:
        """Of each pair of answers, the length of the prefix that a batch computes once for both, in tokens."""
        starts, lengths = self.ends - self.lengths, self.lengths
        limits = np.minimum(lengths, count_shareable(self.flat_supervised, starts, self.ends))
        common = np.minimum(limits[::2], limits[1::2])
        for block in blocks(len(common)):
            common[block] = count_alike(self.flat_tokens, starts[::2][block], starts[1::2][block], common[block])
        return np.where(common < SHORTEST_PREFIX, 0, common)

    @cached_property
    def common_prefix(self) -> int:
        """Length of the prefix that all rows share and a batch computes once, in tokens; 0 if it is too short for that."""
        starts, lengths = self.ends - self.lengths, self.lengths
        common = int(count_shareable(self.flat_supervised, starts, self.ends).min())
        for block in blocks(len(starts)):
            if common < SHORTEST_PREFIX:
                return 0
            limits = np.minimum(lengths[block], common)
            common = int(count_alike(self.flat_tokens, starts[block], np.zeros_like(limits), limits).min())
        return common if common >= SHORTEST_PREFIX else 0


def render_rows(tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], max_length: int) -> TokenRows:
    """Render every row and truncate it to `max_length` tokens; of pairs of answers, both conversations.

    Raises:
        InputError: a row would have no supervised token left, or the answers of a pair no difference; names the row by its
            id.
    """
    ids: list[str] = []
    tokens, supervised, ends = array("i"), array("b"), array("q")
    truncated = longest = 0
    for example in examples:
        whole = render_conversations(tokenizer, example)
        longest = max(longest, *(len(row.ids) for row in whole))
        rows = [Rendering(row.ids[:max_length], row.supervised[:max_length]) for row in whole]
        truncated += any(len(row.ids) > max_length for row in whole)
        _require_answers(example, rows, max_length)
        ids.append(example.id)
        for row in rows:
            tokens.extend(row.ids)
            supervised.extend(row.supervised)
            ends.append(len(tokens))
    return TokenRows(
        ids,
        np.asarray(tokens, dtype=np.int32),
        np.asarray(supervised, dtype=np.bool_),
        np.asarray(ends, dtype=np.int64),
        truncated,
        longest,
    )


def _require_answers(example: Example, rows: Sequence[Rendering], max_length: int) -> None:
    """Require that something can be learnt from a truncated row."""
    if not all(any(row.supervised[1:]) for row in rows):  # the first token is never predicted
        raise InputError(
            f"Row {example.id} has no answer within {max_length} tokens: its prompt alone is longer, so nothing could "
            "be learnt from it. Raise --max-length, or shorten the row"
        )
    if len(rows) > 1 and rows[0] == rows[1]:
        raise InputError(
            f"Both answers of row {example.id} are the same within {max_length} tokens, so no preference could be learnt "
            "from it. Raise --max-length, or remove the row"
        )
