"""Examples → the token ids that an encoder reads: one text, or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.records import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLANK_LINE = "\n\n"
Span = tuple[int, int]


@dataclass(frozen=True)
class EncoderInput:
    """What an encoder reads of one row.

    Args:
        ids: token ids, with the special tokens of the tokenizer.
        token_types: the segment of each token, 0 or 1; empty if the model reads none.
        context: where each token is in the context of the example, in characters from start to end; None outside it.
        length: tokens before truncation.
    """

    ids: tuple[int, ...]
    token_types: tuple[int, ...]
    context: tuple[Span | None, ...]
    length: int

    @property
    def truncated(self) -> bool:
        """Whether tokens were left out."""
        return len(self.ids) < self.length

    def find_tokens(self, place: Span) -> Span | None:
        """The first and the last token of a part of the context, given in characters; None if it was cut."""
        start, end = place
        inside = [
            number for number, span in enumerate(self.context) if span is not None and span[0] < end and span[1] > start
        ]
        whole = inside and self.context[inside[-1]]
        return (inside[0], inside[-1]) if whole and whole[1] >= end else None


def encode(tokenizer: PreTrainedTokenizerBase, example: Example, max_length: int) -> EncoderInput:
    """Tokenise a row as one text, or as two if it has a context: the rest of its conversation, then the context.

    If they are longer than `max_length` tokens, the longer of the two texts is cut.
    """
    return encode_texts(tokenizer, *split_texts(example), max_length)


def encode_texts(tokenizer: PreTrainedTokenizerBase, first: str, second: str | None, max_length: int) -> EncoderInput:
    """Tokenise one text, or two, as `encode` does; the second is the context."""
    whole = tokenizer(first, second, verbose=False)
    length = len(whole["input_ids"])
    encoding = tokenizer(
        first, second, truncation="longest_first", max_length=max_length, return_offsets_mapping=True, verbose=False
    )
    segments, offsets = encoding.sequence_ids(0), encoding["offset_mapping"]
    return EncoderInput(
        ids=tuple(encoding["input_ids"]),
        token_types=tuple(encoding.get("token_type_ids", ())),
        context=tuple(tuple(span) if part == 1 else None for part, span in zip(segments, offsets, strict=True)),
        length=length,
    )


def split_texts(example: Example) -> tuple[str, str | None]:
    """The text or the two texts of a row: its turns before the answer, without the system message and the context."""
    turns = [turn.content for turn in example.messages[:-1] if turn.role != "system"]
    if example.context is None:
        return BLANK_LINE.join(turns), None
    before, _, after = turns.pop().rpartition(example.context)  # of two texts, the first may contain the second
    return BLANK_LINE.join(part for part in (*turns, before.strip(), after.strip()) if part), example.context
