"""A corpus whose training rows all have one length in a model's own tokens, and begin with different words.

    python benchmarks/parts/exact_rows.py MODEL CORPUS --rows N --length TOKENS [--supervised 0.5]

Words are drawn from those that are one token after a blank; half of each row is its answer.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

from finetune.corpus.store import write_corpus
from finetune.models.chat_template import render
from finetune.models.find import find_base
from finetune.models.load import load_tokenizer
from finetune.records import Example, Message

WORDS = 200


def single_words(tokenizer: Any) -> list[str]:
    """Words that stay one token wherever they stand in a text."""
    found = []
    for number in range(len(tokenizer)):
        word = tokenizer.decode([number]).strip()
        if word.isascii() and word.isalnum() and len(tokenizer.encode(f"{word} {word}", add_special_tokens=False)) == 2:
            found.append(word)
        if len(found) == WORDS:
            return found
    return found


def row(tokenizer: Any, words: list[str], number: int, length: int, supervised: float) -> Example:
    """A question and an answer of `length` tokens, template and all."""
    draw = random.Random(number)

    def made(question: int, answer: int) -> Example:
        turns = (
            Message("user", " ".join(draw.choices(words, k=question))),
            Message("assistant", " ".join(draw.choices(words, k=answer))),
        )
        return Example(str(number), turns, "chat")

    frame = len(render(tokenizer, made(1, 1)).ids) - 2
    answer = max(1, round((length - frame) * supervised))
    example = made(length - frame - answer, answer)
    assert len(render(tokenizer, example).ids) == length, "a row has another length"
    return example


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--supervised", type=float, default=0.5)
    given = parser.parse_args()
    base = find_base(given.model)
    tokenizer = load_tokenizer(base.folder, base)
    words = single_words(tokenizer)
    rows = [row(tokenizer, words, number, given.length, given.supervised) for number in range(given.rows)]
    write_corpus(given.corpus, {"train": rows})


if __name__ == "__main__":
    main()
