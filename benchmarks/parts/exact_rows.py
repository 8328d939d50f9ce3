"""Write a corpus whose training rows have exact lengths in tokens of a model, and begin with different words.

    python benchmarks/parts/exact_rows.py MODEL CORPUS --rows N --length TOKENS [TOKENS …]
        [--supervised 0.5] [--seed N] [--tokens FILE]

With several lengths, rows have them in turn. Words are drawn from those that are one token after a blank; --supervised is
the share of a row that is the answer. --tokens also writes the rows as JSON lines of token ids and labels, for trainers that
know no corpus. Prints, as JSON, the number of rows and of supervised tokens in the first.
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
    """Words that are one token anywhere in a text."""
    words: list[str] = []
    for number in range(len(tokenizer)):
        word = tokenizer.decode([number]).strip()
        if word.isascii() and word.isalnum() and len(tokenizer.encode(f"{word} {word}", add_special_tokens=False)) == 2:
            words.append(word)
        if len(words) == WORDS:
            return words
    return words


def make_row(
    number: int, tokenizer: Any, words: list[str], draw: random.Random, length: int, supervised: float
) -> Example:
    """A question and an answer of `length` tokens in total, including the chat template."""

    def draw_turns(question: int, answer: int) -> Example:
        turns = (
            Message("user", " ".join(draw.choices(words, k=question))),
            Message("assistant", " ".join(draw.choices(words, k=answer))),
        )
        return Example(str(number), turns, "chat")

    frame = len(render(tokenizer, draw_turns(1, 1)).ids) - 2
    answer = max(1, round((length - frame) * supervised))
    return draw_turns(length - frame - answer, answer)


def write_rows(
    model: str, corpus: Path, *, rows: int, length: list[int], supervised: float, seed: int, tokens: Path | None
) -> dict[str, int]:
    """Write the corpus and, if asked for, the tokens; return the number of rows and of supervised tokens in the first."""
    base = find_base(model)
    tokenizer = load_tokenizer(base.folder, base)
    words, draw = single_words(tokenizer), random.Random(seed)
    lengths = [length[number % len(length)] for number in range(rows)]
    examples = [make_row(number, tokenizer, words, draw, lengths[number], supervised) for number in range(rows)]
    rendered = [render(tokenizer, example) for example in examples]
    assert [len(row.ids) for row in rendered] == lengths, "a row has another length"
    with writing_corpus(corpus, overwrite=False) as writer:
        writer.write("train", to_table(examples))
        writer.finish("# Rows of exact lengths\n", None)
    if tokens is not None:
        lines = (json.dumps({"input_ids": list(row.ids), "labels": row.labels}) + "\n" for row in rendered)
        tokens.write_text("".join(lines), "utf-8")
    return {"rows": rows, "supervised": sum(rendered[0].supervised)}


def main() -> None:
    """Write the corpus and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--length", type=int, nargs="+", required=True)
    parser.add_argument("--supervised", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=Path)
    print(json.dumps(write_rows(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
