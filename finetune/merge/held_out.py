"""The held-out rows on which a merged model is compared with its adapter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from finetune.corpus.open import open_corpus
from finetune.corpus.store import read_split
from finetune.models.chat_template import unrendered_parts
from finetune.models.heads import Head
from finetune.records import Example, Message
from finetune.train.replay import bundled_rows

ROWS = 64  # that are compared


def choose_rows(
    corpus: Path | str | None, tokenizer: PreTrainedTokenizerBase, head: Head | None, count: int = ROWS
) -> list[Example]:
    """Held-out rows of the corpus that the model reads, spread over its tasks, and bundled ones if these are too few.

    Rows that use tools are left out if the chat template leaves the tools out. An encoder for answers needs contexts.

    Raises:
        MissingStageError: there is no corpus where one is named.
    """
    rows = [row for row in _read_held_out(corpus) if row.task != "text" and _can_read(tokenizer, head, row)]
    rows = spread(rows, count)
    return [*rows, *(_adapt(row, head) for row in spread(bundled_rows(), max(0, min(ROWS, count) - len(rows))))]


def count_bundled(rows: Iterable[Example]) -> int:
    """How many of the rows that `choose_rows` has chosen are bundled ones."""
    bundled = {(row.id, row.messages[-1]) for row in bundled_rows()}
    return sum((row.id, row.messages[-1]) in bundled for row in rows)


def spread(rows: Sequence[Example], count: int) -> list[Example]:
    """At most `count` rows, at even distances."""
    return [*rows] if len(rows) <= count else [rows[number * len(rows) // count] for number in range(count)]


def _read_held_out(corpus: Path | str | None) -> list[Example]:
    if corpus is None:
        return []
    opened = open_corpus(corpus)
    return read_split(opened, "test") or read_split(opened, "validation")


def _can_read(tokenizer: PreTrainedTokenizerBase, head: Head | None, row: Example) -> bool:
    if head is None:
        return not unrendered_parts(tokenizer, row)
    return row.context is not None if head.kind == "extraction" else row.task != "preference"


def _adapt(row: Example, head: Head | None) -> Example:
    """A bundled row as the model reads it: an encoder for answers finds them in a context, which is the answer itself."""
    if head is None or head.kind != "extraction":
        return row
    question, answer = row.messages
    return replace(
        row,
        messages=(Message("user", f"{question.content}\n\n{answer.content}"), answer),
        context=answer.content,
    )
