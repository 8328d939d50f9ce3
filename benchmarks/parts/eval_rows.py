"""The rows that both sides of benchmarks/eval_throughput.py score: eval_rows.py CORPUS MODEL OUT --rows N.

Writes a JSON line per row: its messages and choices, for slmtune; its prompt and its answers with the end of the turn as the
chat template renders them, for the harness. Prints {"model": folder, "rows": number, "prompt_tokens": median, "choices": most}.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from finetune.hub.settings import configure_libraries

configure_libraries()

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.models.chat_template import render_answer, render_prompt
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    arguments = parser.parse_args()
    corpus, base = Corpus.open(arguments.corpus), find_base(arguments.model)
    tokenizer = load_tokenizer(base.folder, base)
    rows = [row for split in ("test", "validation", "train") for row in read_split(corpus, split) if row.label]
    rows = rows[: arguments.rows]
    if len(rows) < arguments.rows:
        raise SystemExit(
            f"{arguments.rows} labelled rows are needed, and the corpus has {len(rows)}. Give fewer --rows"
        )
    lengths = []
    with arguments.out.open("w", encoding="utf-8") as file:
        for row in rows:
            prompt = render_prompt(tokenizer, row.prompt)
            answers = [render_answer(tokenizer, row.prompt, choice) for choice in row.choices]
            lengths.append(len(prompt))
            line = {
                "messages": [[turn.role, turn.content] for turn in row.messages],
                "choices": row.choices,
                "label": row.label,
                "prompt": tokenizer.decode(prompt),
                "answers": [tokenizer.decode(answer) for answer in answers],
                "target": row.choices.index(row.label),
            }
            file.write(json.dumps(line) + "\n")
    facts = {
        "rows": len(rows),
        "prompt_tokens": statistics.median(lengths),
        "choices": max(len(row.choices) for row in rows),
    }
    print(json.dumps({"model": str(base.folder), **facts}))


if __name__ == "__main__":
    main()
