"""Documents per second of `slmtune prepare` on its local engine and on a Ray of this machine, stage by stage.

    python benchmarks/prepare_ray.py [--documents 100000] [--workers 1,2] [--cores 256] [--folder FOLDER]

The documents are those of prepare_throughput.py. A stage is timed by its reports: `read` ends when all shards are there (on
Ray it includes starting Ray), `compare` when all rows are selected, `write` when the corpus is on disk. The corpora of all
runs must have the same fingerprint.

The last lines extrapolate to a billion documents on a cluster of --cores, from what Ray takes longer with the last number of
processes than for a quarter of the documents, so without the seconds that it takes to start: reading is divided among the
cores of the cluster, comparing and writing are done on one machine. They are an estimate: no cluster was measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parts.child import run
from prepare_throughput import BLOCK, write

BILLION = 10**9


def prepare_once(engine: Literal["local", "ray"], workers: int, source: Path, out: Path) -> None:
    """Prepare in this process, and print the seconds at which each stage ended."""
    from finetune.hub.settings import configure_libraries

    configure_libraries()
    from finetune.prepare import PrepareRequest, prepare

    started = time.perf_counter()
    ends: dict[str, float] = {}

    def note(stage: str, done: int, total: int, unit: str) -> None:
        ends[stage] = time.perf_counter() - started

    request = PrepareRequest(out, sources=(str(source),), engine=engine, workers=workers)
    result = prepare(request, note)
    print(json.dumps({"ends": ends, "fingerprint": result.fingerprint, "seconds": result.seconds}))


@dataclass(frozen=True)
class Run:
    """What a run took: in all, and to read, compare and write (seconds)."""

    engine: str
    workers: int
    seconds: float
    stages: tuple[float, float, float]
    fingerprint: str


def measure(engine: str, workers: int, source: Path, count: int) -> Run:
    """Prepare in a process of its own, and print a line of the table."""
    folder = source.parent
    tool = f"{engine}-{workers}-{count}"
    words = [sys.executable, __file__, "--once", engine, str(workers), str(source), str(folder / tool)]
    told = run(tool, words, folder).object()
    ends, seconds = told["ends"], told["seconds"]
    stages = (ends["read"], ends["compare"] - ends["read"], seconds - ends["compare"])
    times = " | ".join(f"{stage:.1f}" for stage in stages)
    print(f"| {engine} | {workers} | {count:,} | {seconds:.1f} | {count / seconds:,.0f} | {times} |", flush=True)
    return Run(engine, workers, seconds, stages, told["fingerprint"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--workers", default="1,2", help="numbers of processes, separated by commas")
    parser.add_argument("--cores", type=int, default=256, help="of the cluster in the estimate")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    parser.add_argument("--once", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        engine, workers, source, out = arguments.once
        prepare_once(engine, int(workers), Path(source), Path(out))
        return
    if importlib.util.find_spec("ray") is None:
        print("Ray is not installed: pip install 'slmtune[ray]'", file=sys.stderr)
        raise SystemExit(2)
    count, several = arguments.documents, list(map(int, arguments.workers.split(",")))
    files = 4 * max(several)
    if count % (8 * BLOCK) or count < 4 * files * BLOCK:
        parser.error(f"--documents {count}: give a multiple of {8 * BLOCK}, at least {4 * files * BLOCK}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        source, quarter = folder / "documents", folder / "quarter"
        write(source, count, files)
        write(quarter, count // 4, files)
        print(
            "| engine | processes | documents | seconds | documents/s | read (s) | compare (s) | write (s) |\n"
            "|---|---|---|---|---|---|---|---|"
        )
        runs = [measure(engine, workers, source, count) for engine in ("local", "ray") for workers in several]
        few = measure("ray", several[-1], quarter, count // 4)
    local, ray = (next(run for run in reversed(runs) if run.engine == engine) for engine in ("local", "ray"))
    if len({run.fingerprint for run in runs}) > 1:
        raise SystemExit("The corpora differ.")
    print(
        f"\nWith {ray.workers} processes, Ray takes {ray.seconds / local.seconds:.2f} times as long as the local engine."
    )
    print(f"All corpora of {count:,} documents have the fingerprint {ray.fingerprint[:16]}.")
    read, *rest = ((more - less) / (count - count // 4) for more, less in zip(ray.stages, few.stages, strict=True))
    hours = read * ray.workers * BILLION / arguments.cores / 3600, sum(rest) * BILLION / 3600
    print(
        f"At these rates, a billion documents would take {hours[0]:.1f} hours to read on {arguments.cores} cores, and "
        f"{hours[1]:.1f} hours to compare and write on one machine (estimate)."
    )


if __name__ == "__main__":
    main()
