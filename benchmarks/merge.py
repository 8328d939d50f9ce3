"""Time and memory of a merge, as ratios to PEFT's `merge_and_unload` on the same model of more than a billion weights.

The weights are random, in bfloat16. Each round runs every side once, in alternating order, in a process of its own; the medians
are printed. The time is that of loading, merging and saving, without imports; the memory is the largest resident size of the
process, with the libraries. What slmtune also does, the comparison of every stored tensor, is a row of its own.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from parts.child import CompletedRun, run

PARTS = Path(__file__).parent / "parts"
SIDES = ("peft", "slmtune", "replayed")


def measure(folder: Path, rounds: int) -> dict[str, list[CompletedRun]]:
    """Every side in every round."""
    runs: dict[str, list[CompletedRun]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            runs[side].append(merge(side, folder))
            shutil.rmtree(folder / "out", ignore_errors=True)
    return runs


def merge(side: str, folder: Path) -> CompletedRun:
    """One side, once."""
    paths = [str(folder / name) for name in ("base", "adapter", "out")]
    return run(side, [sys.executable, str(PARTS / "merge_weights.py"), side, *paths], folder)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3.2-1b", help="Shape of the model, as in parts/random_model.py.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="Folder with space for three copies of the model.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        write = [sys.executable, str(PARTS / "random_model.py"), given.shape, str(folder / "base")]
        parameters = run("model", write, folder).object()["parameters"]
        merge("adapter", folder)
        runs = measure(folder, given.rounds)
    seconds = {side: statistics.median(one.object()["seconds"] for one in runs[side]) for side in SIDES}
    peaks = {side: statistics.median(one.peak for one in runs[side]) for side in SIDES}
    print(f"{given.shape}: {parameters / 1e9:.2f} billion weights, {given.rounds} rounds")
    print(f"{'':10}{'seconds':>10}{'ratio':>8}{'peak, GiB':>12}{'ratio':>8}")
    for side in SIDES:
        ratios = seconds[side] / seconds["peft"], peaks[side] / peaks["peft"]
        print(f"{side:10}{seconds[side]:10.1f}{ratios[0]:8.2f}{peaks[side] / 2**30:12.2f}{ratios[1]:8.2f}")


if __name__ == "__main__":
    main()
