"""Speed and memory of scoring labels: `slmtune eval` against lm-evaluation-harness, in turn, on the same rows and model.

    python benchmarks/eval_throughput.py [--model smollm2-135m] [--corpus CORPUS] [--rows 500] [--rounds 3]
        [--batches auto,16,64] [--json FILE]

Both score all choices of labelled rows (default: the bundled news of the finance domain) as complete answers, end of the turn
included, with the same rendered prompts, in float32 without quantisation. slmtune also computes the priors of its calibrated
scores, and keeps its default batch size; the harness (model type `hf`) runs with the best of --batches, found on a tenth of the
rows.

Prints the median of the rounds of:
  seconds  of scoring, without loading the model
  peak     maximum GiB resident in the process (wait4), from start to exit
and how many predictions are the same, the largest difference of a log-probability, and the ratio of the seconds. The
log-probabilities of a row are compared after that of its first choice is taken off, because the harness adds that of the blanks
at the end of the prompt to all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from parts.child import run

PARTS = Path(__file__).parent / "parts"
SLMTUNE = [sys.executable, "-m", "finetune"]


@dataclass(frozen=True)
class Measurement:
    """One run of one side: seconds of scoring, peak memory, the choice of each row and the log-probabilities of all choices."""

    seconds: float
    peak: int
    picks: list[int]
    logprobs: list[list[float]]


def measure(side: str, rows: Path, model: str, batch: str, folder: Path) -> Measurement:
    """Score the rows once."""
    script = "score_rows.py" if side == "slmtune" else "harness_rows.py"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    completed = run(
        side, [sys.executable, str(PARTS / script), str(rows), model, "--batch", batch], folder, environment
    )
    facts = completed.object()
    return Measurement(facts["seconds"], completed.peak, facts["picks"], facts["logprobs"])


def find_batch(batches: list[str], rows: Path, model: str, folder: Path) -> str:
    """The batch size with which the harness is fastest on a tenth of the rows."""
    if len(batches) == 1:
        return batches[0]
    lines = rows.read_text("utf-8").splitlines(keepends=True)
    few = folder / "few.jsonl"
    few.write_text("".join(lines[::10]), "utf-8")
    seconds = {batch: measure("harness", few, model, batch, folder).seconds for batch in batches}
    print(
        "harness, a tenth of the rows: " + ", ".join(f"batch {batch} {took:.1f} s" for batch, took in seconds.items())
    )
    return min(seconds, key=lambda batch: seconds[batch])


def report(ours: list[Measurement], theirs: list[Measurement]) -> float:
    """Print what the rounds have in common, and return the median ratio of the seconds."""
    for name, runs in (("slmtune", ours), ("harness", theirs)):
        seconds, peak = (statistics.median(getattr(one, kind) for one in runs) for kind in ("seconds", "peak"))
        print(f"{name:<10} {seconds:>8.1f} s {peak / 2**30:>8.2f} GiB")
    pairs = list(zip(ours[0].picks, theirs[0].picks, strict=True))
    gaps = [
        abs((one - row[0][0]) - (other - row[1][0]))
        for row in zip(ours[0].logprobs, theirs[0].logprobs, strict=True)
        for one, other in zip(*row, strict=True)
    ]
    print(f"same predictions {sum(a == b for a, b in pairs)} of {len(pairs)}; largest difference {max(gaps):.2g} nats")
    ratios = [other.seconds / one.seconds for one, other in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    print(f"harness / slmtune {ratio:.2f}   ({', '.join(f'{one:.2f}' for one in ratios)})")
    return ratio


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="preset or folder")
    parser.add_argument("--corpus", type=Path, help="corpus with labelled rows, instead of the bundled news")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", default="16", help="of slmtune")
    parser.add_argument("--batches", default="auto,16,64", help="of the harness: the best of them is taken")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, corpus = folder / "rows.jsonl", arguments.corpus or folder / "corpus"
        if arguments.corpus is None:
            sample = ["--domain", "finance", "--sample", "--task", "sentiment", "--output-dir", str(corpus)]
            run("prepare", [*SLMTUNE, "prepare", *sample], folder)
        cut = [sys.executable, str(PARTS / "eval_rows.py"), str(corpus), arguments.model, str(rows)]
        facts = run("rows", [*cut, "--rows", str(arguments.rows)], folder).object()
        print(
            f"{facts['rows']} rows, {facts['prompt_tokens']:.0f} tokens in the median prompt, {facts['choices']} choices"
        )
        batch = find_batch(arguments.batches.split(","), rows, facts["model"], folder)
        ours: list[Measurement] = []
        theirs: list[Measurement] = []
        for number in range(arguments.rounds):
            ours.append(measure("slmtune", rows, facts["model"], arguments.batch, folder))
            theirs.append(measure("harness", rows, facts["model"], batch, folder))
            print(
                f"round {number + 1}: slmtune {ours[-1].seconds:.1f} s, harness {theirs[-1].seconds:.1f} s", flush=True
            )
        ratio = report(ours, theirs)
    if arguments.json:
        result = {
            **facts,
            "batch": batch,
            "ratio": ratio,
            "slmtune": [*map(asdict, ours)],
            "harness": [*map(asdict, theirs)],
        }
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
