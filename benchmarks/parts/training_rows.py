"""Draw the rows that every trainer of benchmarks/train_throughput.py gets, and count their tokens.

    python benchmarks/parts/training_rows.py CORPUS OUT MODEL --rows N --held-out N [--task NAME] [--seed N]

Writes a corpus of N training rows, drawn by the seed, and of the held-out rows, and the training rows as slmtune renders
them to OUT.jsonl; prints one JSON object:
  model        the local folder of the base model
  tokens       the file of rendered rows
  rendered     tokens and supervised tokens of the training rows as slmtune renders them: answers carry loss
  templated    these counts as `trl sft` reads a `messages` column by default: the whole chat template, truncated to
               1,024 tokens; every token but the first carries loss
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from finetune.hub.settings import configure_libraries

configure_libraries()

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split, to_table, writing_corpus
from finetune.models.chat_template import render
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer
from finetune.records import Example

TRL_MAX_LENGTH = 1024  # default of trl.SFTConfig


def draw(examples: list[Example], count: int, task: str | None, seed: int, split: str) -> list[Example]:
    """`count` rows, or rows of a task, in random order."""
    rows = [example for example in examples if task in (None, example.task)]
    if len(rows) < count:
        kind = f"{split} rows" if task is None else f"{split} rows of the task {task}"
        raise SystemExit(
            f"{count} {kind} are needed, but the corpus has {len(rows)}. Give fewer --steps, or a --corpus"
        )
    return random.Random(seed).sample(rows, count)


def write_rendered(tokenizer: Any, examples: list[Example], file: Path) -> dict[str, int]:
    """Write the rows as slmtune renders them, and count their tokens."""
    rows = [render(tokenizer, example) for example in examples]
    lines = [json.dumps({"input_ids": list(row.ids), "labels": list(row.labels)}) + "\n" for row in rows]
    file.write_text("".join(lines), "utf-8")
    return {"tokens": sum(len(row.ids) for row in rows), "supervised": sum(sum(row.supervised[1:]) for row in rows)}


def count_templated(tokenizer: Any, examples: list[Example]) -> dict[str, int]:
    """Count tokens as TRL 1.16 tokenises a `messages` column (`SFTTrainer._prepare_dataset`)."""
    lengths = []
    for example in examples:
        turns = [{"role": turn.role, "content": turn.content} for turn in example.messages]
        lengths.append(min(len(tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]), TRL_MAX_LENGTH))
    return {"tokens": sum(lengths), "supervised": sum(lengths) - len(lengths)}


def main() -> None:
    """Write the corpus and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--held-out", type=int, required=True)
    parser.add_argument("--task")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    corpus, base = Corpus.open(arguments.corpus), find_base(arguments.model)
    train = draw(read_split(corpus, "train"), arguments.rows, arguments.task, arguments.seed, "training")
    held_out = read_split(corpus, "validation")
    held_out = draw(held_out, min(arguments.held_out, len(held_out)), None, arguments.seed, "validation")
    with writing_corpus(arguments.out, overwrite=False) as writer:
        writer.write("train", to_table(train))
        writer.write("validation", to_table(held_out))
        writer.finish("# Drawn rows\n", None)
    tokenizer = load_tokenizer(base.folder, base)
    tokens = arguments.out.with_suffix(".jsonl")
    counts = {"rendered": write_rendered(tokenizer, train, tokens), "templated": count_templated(tokenizer, train)}
    facts = {"model": str(base.folder), "tokens": str(tokens), "rows": len(train), "held_out": len(held_out)}
    print(json.dumps(facts | counts))


if __name__ == "__main__":
    main()
