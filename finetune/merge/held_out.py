"""The held-out rows on which a merged model is compared with its adapter."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.errors import MissingStageError
from finetune.models.chat_template import unrendered_parts
from finetune.models.heads import Head
from finetune.records import Example, Message

ROWS = 64  # that are compared

# Used if there is no corpus.
BUNDLED_PROMPTS = (
    ("What is inflation?", "Inflation is a general rise in prices, so that money buys less than before."),
    ("Why do banks hold capital?", "Capital absorbs losses before depositors and other creditors are hurt."),
    (
        "How does a vaccine work?",
        "It shows the immune system a harmless part of a germ, so that defences are ready later.",
    ),
    ("What is a dividend?", "A dividend is the part of its profit that a company pays out to its shareholders."),
    ("Name a source of vitamin C.", "Oranges, peppers and broccoli are rich in vitamin C."),
    ("What does liquidity mean?", "Liquidity is how quickly something can be turned into cash without a loss."),
    ("Why wash hands?", "Washing hands with soap removes germs before they reach the mouth, nose or eyes."),
    ("What is a bond?", "A bond is a loan that investors give to a company or a state against interest."),
)


def choose_rows(corpus: Path | None, tokenizer: PreTrainedTokenizerBase, head: Head | None) -> list[Example]:
    """Held-out rows of the corpus that the model reads, spread over its tasks; bundled ones if there is no corpus.

    Rows that use tools are left out if the chat template leaves the tools out. An encoder for answers needs contexts.
    """
    if corpus is not None:
        try:
            opened = Corpus.open(corpus)
        except MissingStageError:
            opened = None
        if opened is not None:
            rows = read_split(opened, "test") or read_split(opened, "validation")
            rows = [row for row in rows if row.task != "text" and _can_read(tokenizer, head, row)]
            if rows:
                step = max(1, len(rows) // ROWS)
                return rows[::step][:ROWS]
    return [_bundled(number, *texts, head) for number, texts in enumerate(BUNDLED_PROMPTS)]


def _can_read(tokenizer: PreTrainedTokenizerBase, head: Head | None, row: Example) -> bool:
    if head is None:
        return not unrendered_parts(tokenizer, row)
    return row.context is not None if head.kind == "extraction" else row.task != "preference"


def _bundled(number: int, question: str, answer: str, head: Head | None) -> Example:
    context = answer if head and head.kind == "extraction" else None
    prompt = question if context is None else f"{question}\n\n{context}"
    return Example(f"bundled-{number}", (Message("user", prompt), Message("assistant", answer)), "qa", context=context)
