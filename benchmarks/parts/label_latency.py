"""Time to label one row, with an adapter in memory: label_latency.py ADAPTER CORPUS [--rows 50].

The first rows of the test split, one at a time, after two that are not timed. Prints {"seconds": the median per row}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from finetune.artifacts import Adapter, Corpus
from finetune.corpus.store import read_split
from finetune.models.encoder_inputs import encode
from finetune.models.load import load_adapter
from finetune.records import Example
from finetune.scoring.encoders import label_probabilities
from finetune.scoring.labels import label_logprobs

WARM_UP = 2


def main() -> None:
    """Label row after row, and print the median duration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--rows", type=int, default=50)
    arguments = parser.parse_args()
    adapter = Adapter.open(arguments.adapter)
    loaded = load_adapter(adapter)
    rows = [row for row in read_split(Corpus.open(arguments.corpus), "test") if row.choices]

    def label(row: Example) -> None:
        if loaded.head is None:
            label_logprobs(loaded, [row], batch_size=1)
        else:
            inputs = [encode(loaded.tokenizer, row, adapter.config["max_length"])]
            label_probabilities(loaded, inputs, batch_size=1)

    seconds = []
    for row in rows[: WARM_UP + arguments.rows]:
        started = time.perf_counter()
        label(row)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": statistics.median(seconds[WARM_UP:])}))


if __name__ == "__main__":
    main()
