"""Labels of rows by slmtune: score_rows.py ROWS MODEL [--batch 16]; ROWS is from eval_rows.py.

The model is loaded as `slmtune eval` loads it, unquantised in float32. Prints {"seconds": of scoring, "picks": numbers of the
choices, "logprobs": of all choices}.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from finetune.hub.settings import configure_libraries

configure_libraries()

from finetune.models.find import find_base
from finetune.models.load import load
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Message
from finetune.scoring.labels import score_labels


def main() -> None:
    """Score the rows and print the picks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.rows.read_text("utf-8").splitlines()]
    rows = [
        Example(
            str(number),
            tuple(Message(role, content) for role, content in line["messages"]),
            "classification",
            line["label"],
            tuple(line["choices"]),
        )
        for number, line in enumerate(lines)
    ]
    loaded = load(find_base(arguments.model), AdapterRecipe(quantization="none", compute_dtype="float32"))
    started = time.perf_counter()
    scores = score_labels(loaded, rows, batch_size=arguments.batch)
    seconds = time.perf_counter() - started
    picks = [row.best("raw") for row in scores]
    print(json.dumps({"seconds": seconds, "picks": picks, "logprobs": [row.logprobs for row in scores]}))


if __name__ == "__main__":
    main()
