"""What labelling costs with an encoder and with a causal language model, on the same corpus.

    python benchmarks/label_models.py [--models minilm-l6,smollm2-135m] [--corpus CORPUS] [--train "OPTIONS"] [--seeds 3]
        [--json FILE]

Each model is trained with the defaults of `slmtune train` (--train "..." changes them for all), once per seed, in turn, and
evaluated on the test split (default: the bundled finance sample). A model is a preset, a Hub id or a folder.

Prints a Markdown table with the median of the seeds of:
  minutes      duration of `slmtune train`, from start to exit
  GiB          peak resident memory of that process
  weighted F1  on the test split, from lowest to highest
  ms per row   to label one row, one at a time, in a loaded model (benchmarks/parts/label_latency.py)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from parts.child import run

PARTS = Path(__file__).parent / "parts"
SLMTUNE = [sys.executable, "-m", "finetune"]
HEADER = "| model | minutes | GiB | weighted F1 | ms per row |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Measurement:
    """One model with one seed: minutes and bytes of training, F1 on the test split, seconds per row."""

    model: str
    seed: int
    minutes: float
    peak: int
    weighted_f1: float
    latency: float


def measure(arguments: argparse.Namespace, corpus: str, model: str, seed: int, folder: Path) -> Measurement:
    """Train, evaluate and time one model."""
    adapter, report = folder / f"adapter-{seed}", folder / f"eval-{seed}"
    shared = ["--corpus", corpus, "--json"]
    command = [*SLMTUNE, "train", *shared, "--model", model, "--seed", str(seed), "--out", str(adapter)]
    training = run("train", [*command, *arguments.train.split()], folder)
    scores = run("eval", [*SLMTUNE, "eval", str(adapter), *shared, "--out", str(report)], folder).object()
    tasks = scores["tasks"].values()
    f1 = sum(task["n"] * task["adapter"]["weighted_f1"] for task in tasks) / sum(task["n"] for task in tasks)
    timing = run("latency", [sys.executable, str(PARTS / "label_latency.py"), str(adapter), corpus], folder).object()
    return Measurement(model, seed, training.seconds / 60, training.peak, f1, timing["seconds"])


def line(rows: list[Measurement]) -> str:
    """A row of the table, from the measurements of one model."""
    minutes, peak, latency = (
        statistics.median(getattr(row, name) for row in rows) for name in ("minutes", "peak", "latency")
    )
    f1 = sorted(row.weighted_f1 for row in rows)
    spread = f"{statistics.median(f1):.3f}" + (f" ({f1[0]:.3f}–{f1[-1]:.3f})" if len(f1) > 1 else "")
    return f"| {Path(rows[0].model).name} | {minutes:.1f} | {peak / 2**30:.2f} | {spread} | {latency * 1e3:.0f} |"


def main() -> None:
    """Measure every model, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="minilm-l6,smollm2-135m")
    parser.add_argument("--corpus")
    parser.add_argument("--train", default="", help="further options of `slmtune train`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    models = arguments.models.split(",")
    measured: dict[str, list[Measurement]] = {model: [] for model in models}
    with tempfile.TemporaryDirectory() as scratch:
        corpus = arguments.corpus or str(Path(scratch) / "corpus")
        if not arguments.corpus:
            prepare = ["prepare", "--domain", "finance", "--sample", "--task", "sentiment", "--output-dir", corpus]
            run("prepare", [*SLMTUNE, *prepare], Path(scratch))
        for seed in range(arguments.seeds):
            for number, model in enumerate(models):
                folder = Path(scratch) / str(number)
                folder.mkdir(exist_ok=True)
                measured[model].append(measure(arguments, corpus, model, seed, folder))
    print(HEADER, *map(line, measured.values()), sep="\n")
    if arguments.json:
        rows = [asdict(row) for rows in measured.values() for row in rows]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
