"""Clean and deduplicate with datatrove's local executor; run by prepare_throughput.py in datatrove's environment.

    python benchmarks/parts/datatrove_minhash.py SOURCE_FOLDER OUTPUT_FOLDER WORKERS TASKS SPLITTER

Reader, ftfy, MinHash over word 5-grams with 128 permutations, writer: each text is read and repaired once. SPLITTER is
`spacy`, datatrove's default for English, or `blanks`, which does less and is faster.
"""

from __future__ import annotations

import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.formatters import FTFYFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

CONFIG = MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8)


class Blanks:
    """Splits a text into words at white space."""

    def word_tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return text.split()


def main(source: str, output: Path, workers: int, tasks: int, splitter: str) -> None:
    """Run the four stages, one after the other."""
    work = {name: str(output / name) for name in ("clean", "signatures", "buckets", "removed", "kept", "logs")}
    signature = MinhashDedupSignature(work["signatures"], CONFIG)
    if splitter == "blanks":
        signature.word_tokenizer = Blanks()
    stages: list[tuple[int, list[PipelineStep]]] = [
        (tasks, [JsonlReader(source), FTFYFormatter(), JsonlWriter(work["clean"], compression=None), signature]),
        (CONFIG.num_buckets, [MinhashDedupBuckets(work["signatures"], work["buckets"], config=CONFIG)]),
        (1, [MinhashDedupCluster(work["buckets"], work["removed"], config=CONFIG)]),
        (
            tasks,
            [
                JsonlReader(work["clean"]),
                MinhashDedupFilter(work["removed"]),
                JsonlWriter(work["kept"], compression=None),
            ],
        ),
    ]
    for number, (count, steps) in enumerate(stages):
        logs = f"{work['logs']}/{number}"
        LocalPipelineExecutor(steps, tasks=count, workers=workers, logging_dir=logs, start_method="fork").run()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
