"""Examples → token ids and labels, cut to the longest length that training allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.chat import Rendered, render
from finetune.errors import InputError
from finetune.records import Example

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rows:
    """Rendered rows and how long they were; counts are of tokens, after cutting."""

    rendered: tuple[Rendered, ...]
    truncated: int
    longest: int

    @property
    def tokens(self) -> int:
        """Tokens in one pass over the rows."""
        return sum(len(row.ids) for row in self.rendered)

    @property
    def supervised_tokens(self) -> int:
        """Tokens that carry loss in one pass over the rows."""
        return sum(sum(row.supervised) for row in self.rendered)

    def to_dataset(self) -> datasets.Dataset:
        """Columns `input_ids` and `labels`, as TRL reads them with preparation switched off."""
        from datasets import Dataset

        columns = {
            "input_ids": [list(row.ids) for row in self.rendered],
            "labels": [row.labels for row in self.rendered],
            "length": [len(row.ids) for row in self.rendered],
        }
        return Dataset.from_dict(columns)


def render_rows(tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], max_length: int) -> Rows:
    """Render every row and cut it to `max_length` tokens.

    Raises:
        InputError: a row would be left without any supervised token, and so teach nothing; names the row by its id.
    """
    kept: list[Rendered] = []
    truncated = longest = 0
    for example in examples:
        row = render(tokenizer, example)
        longest = max(longest, len(row.ids))
        if len(row.ids) > max_length:
            truncated += 1
            row = Rendered(row.ids[:max_length], row.supervised[:max_length])
        if not any(row.supervised[1:]):  # the first token is never predicted
            raise InputError(
                f"Row {example.id} has no answer within {max_length} tokens: its prompt alone is longer, so it would teach "
                "nothing. Raise --max-length, or shorten the row"
            )
        kept.append(row)
    return Rows(tuple(kept), truncated, longest)
