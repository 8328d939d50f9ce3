"""A corpus whose training rows all have one length in a model's own tokens, and begin with different words.

    python benchmarks/parts/exact_rows.py MODEL CORPUS --rows N --length TOKENS [--supervised 0.5] [--seed N]

Words are drawn from those that are one token after a blank; the answer holds the given share of a row. Prints, as JSON, how
many rows there are and how many tokens of each are supervised.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from finetune.corpus.store import to_table, writing_corpus
from finetune.models.chat_template import render
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer
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


def make_row(
    number: int, tokenizer: Any, words: list[str], draw: random.Random, length: int, supervised: float
) -> Example:
    """A question and an answer of `length` tokens, template and all."""

    def made(question: int, answer: int) -> Example:
        turns = (
            Message("user", " ".join(draw.choices(words, k=question))),
            Message("assistant", " ".join(draw.choices(words, k=answer))),
        )
        return Example(str(number), turns, "chat")

    frame = len(render(tokenizer, made(1, 1)).ids) - 2
    answer = max(1, round((length - frame) * supervised))
    return made(length - frame - answer, answer)


def write_rows(model: str, corpus: Path, *, rows: int, length: int, supervised: float, seed: int) -> dict[str, int]:
    """Write the corpus; how many rows it has, and how many supervised tokens each of them."""
    base = find_base(model)
    tokenizer = load_tokenizer(base.folder, base)
    words, draw = single_words(tokenizer), random.Random(seed)
    examples = [make_row(number, tokenizer, words, draw, length, supervised) for number in range(rows)]
    rendered = [render(tokenizer, example) for example in examples]
    assert all(len(row.ids) == length for row in rendered), "a row has another length"
    with writing_corpus(corpus, overwrite=False) as writer:
        writer.write("train", to_table(examples))
        writer.finish("# Rows of one length\n", None)
    return {"rows": rows, "supervised": sum(rendered[0].supervised)}


def main() -> None:
    """Write what is asked for, and print what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--supervised", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(write_rows(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
