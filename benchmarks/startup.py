"""How long the first seconds of a command take: `slmtune --help`, and the first training step, import by import.

Prints, with the median of several starts each:
- `slmtune --help` as a ratio to a bare `import click, rich.console`;
- the moments of `slmtune train --max-steps 1` on short rows and SmolLM2-135M: when the imports are done, when the rows are
  rendered, when the weights are loaded and when the first step ends, with compiled bytecode and without any, and the
  same for the libraries alone;
- the slowest imports of that command, in seconds of their own with everything below them.

With `--rows`, it measures instead the same moments, and the memory then, for corpora of several sizes: at the first start with
a corpus, and at later ones. Processes end after their first step.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from finetune.machine import cache_folder, format_bytes

ROWS = 4_326  # of two labels, about 25 words each
MARK = "slmtune-benchmark"
# Runs `slmtune train` up to the first step; prints the time since the start of the process, and the memory, after each stage.
STAGES = f"""
import os, sys, time
import psutil
start = float(sys.argv.pop(1))
def mark(stage):
    used = psutil.Process().memory_info().rss
    print("{MARK}", stage, time.time() - start, used, flush=True, file=sys.stderr)
    if stage == "first step":
        os._exit(0)
from finetune.hub.settings import configure_libraries, importing_trainer
from finetune.machine import importing_libraries
configure_libraries(offline=True)
with importing_libraries(), importing_trainer():
    import finetune.train.run as run
    import finetune.train.fit as fit
mark("imports")
def after(module, name, stage):
    function = getattr(module, name)
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        mark(stage)
        return result
    setattr(module, name, call)
after(run, "open_inputs", "inputs opened")
after(run, "fit_memory", "rows rendered")
after(run, "load_base", "weights loaded")
after(fit.SupervisedTrainer, "__init__", "trainer ready")
after(fit.SupervisedTrainer, "training_step", "first step")
from finetune.cli import main
main()
"""

# The same with the libraries alone and no data: the least that a first step can take with them.
BARE = f"""
import gc, sys, time
start = float(sys.argv.pop(1))
def mark(stage):
    print("{MARK}", stage, time.time() - start, 0, flush=True, file=sys.stderr)
from finetune.hub.settings import configure_libraries, importing_trainer
configure_libraries(offline=True)
gc.disable()
with importing_trainer():
    import bitsandbytes, peft, torch, transformers, trl
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    trl.SFTTrainer
from finetune.models.find import find_base
folder = find_base("smollm2-135m", fetch=False).folder
mark("imports")
nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=nf4, dtype=torch.float32)
mark("weights loaded")
model = peft.get_peft_model(model, peft.LoraConfig(r=16, target_modules="all-linear")).train()
ids = torch.randint(0, 40_000, (8, 60))
model(input_ids=ids, labels=ids).loss.backward()
mark("first step")
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=15, help="Starts of --help (default: %(default)s).")
    parser.add_argument("--runs", type=int, default=3, help="Runs of train (default: %(default)s).")
    parser.add_argument("--imports", type=int, default=15, help="Imports to list (default: %(default)s).")
    parser.add_argument("--rows", type=int, nargs="+", help="Compare starts with corpora of so many rows.")
    parser.add_argument("--corpora", type=Path, help="Folder in which the corpora of --rows are, or stay.")
    options = parser.parse_args()
    if options.rows:
        with tempfile.TemporaryDirectory() as folder:
            compare_sizes(options.rows, options.corpora or Path(folder), options.runs, Path(folder))
        return
    print_help_ratio(options.starts)
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepare_rows(Path(folder), ROWS)
        train = ["train", "--offline", "--corpus", str(corpus), "--output-dir", f"{folder}/adapter", "--overwrite"]
        print_stages([*train, "--max-steps", "1"], options.runs, Path(folder, "bytecode"))
        print_imports([*train, "--max-steps", "1"], options.imports)


def print_help_ratio(starts: int) -> None:
    """The time of `slmtune --help`, and how many times that of the libraries it cannot do without."""
    commands = {
        "slmtune --help": [sys.executable, "-m", "finetune", "--help"],
        "import click, rich.console": [sys.executable, "-c", "import click, rich.console"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(starts):
        for name, command in commands.items():  # in turn, so that a slow moment hits both
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, value in median.items():
        print(f"{name:<28} {value:.3f} s, median of {starts}")
    print(f"{'ratio':<28} {median['slmtune --help'] / median['import click, rich.console']:.2f}\n")


def compare_sizes(sizes: Sequence[int], corpora: Path, runs: int, folder: Path) -> None:
    """When each stage ends with corpora of several sizes: at the first start, and the least of later ones.

    Each size has a cache of its own, empty but for models.
    """
    for size in sizes:
        corpus = corpora / f"corpus-{size}"
        if not corpus.exists():
            corpus = prepare_rows(corpora, size)
        cache = folder / f"cache-{size}" / "slmtune"
        cache.mkdir(parents=True)
        (cache / "models").symlink_to(cache_folder() / "models")
        environment = {**os.environ, "XDG_CACHE_HOME": str(cache.parent), "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        out = str(folder / f"adapter-{size}")
        command = [
            "train",
            "--offline",
            "--corpus",
            str(corpus),
            "--output-dir",
            out,
            "--overwrite",
            "--max-steps",
            "1",
        ]
        if size == sizes[0]:
            _time_stages(BARE, (), environment)  # compiles
        first, *later = [_time_stages(STAGES, command, environment) for _ in range(1 + runs)]
        print(f"{size:>9} rows, seconds until   first start   later (least of {runs})   memory at a later start")
        for stage in first:
            least = min(run[stage] for run in later)
            print(f"{stage:<30} {first[stage][0]:>10.2f} {least[0]:>14.2f} {format_bytes(least[1]):>28}")
        print(flush=True)


def prepare_rows(folder: Path, count: int) -> Path:
    """A corpus of short labelled rows."""
    rows = folder / f"rows-{count}.csv"
    with rows.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(count):
            trend, label = ("rose", "up") if number % 2 else ("fell", "down")
            writer.writerow(
                [f"Shares of company {number} {trend} by {number % 97} cents after report {number * 7}", label]
            )
    corpus = folder / f"corpus-{count}"
    prepare = ["prepare", "--offline", "--quiet", "--no-dedup", "--split-ratio", "1/0/0", "--source", str(rows)]
    run_slmtune([*prepare, "--output-dir", str(corpus)])
    return corpus


def print_stages(command: Sequence[str], runs: int, bytecode: Path) -> None:
    """When each stage of a command ends, in seconds since its start: with bytecode, without, and the libraries alone."""
    cached = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    cached.pop("PYTHONDONTWRITEBYTECODE", None)
    bare = {**os.environ, "PYTHONPYCACHEPREFIX": f"{bytecode}-none", "PYTHONDONTWRITEBYTECODE": "1"}
    _time_stages(STAGES, command, cached)  # compiles
    columns = {
        "bytecode": [_time_stages(STAGES, command, cached) for _ in range(runs)],
        "libraries": [_time_stages(BARE, (), cached) for _ in range(runs)],
        "no bytecode": [_time_stages(STAGES, command, bare) for _ in range(runs)],
    }
    print(f"{'seconds until':<28} " + " ".join(f"{name:>12}" for name in columns) + f"   (median of {runs})")
    for stage in columns["bytecode"][0]:
        cells = [
            f"{statistics.median(run[stage][0] for run in results):>12.2f}" if stage in results[0] else " " * 12
            for results in columns.values()
        ]
        print(f"{stage:<28} " + " ".join(cells))
    print()


def _time_stages(script: str, command: Sequence[str], environment: dict[str, str]) -> dict[str, tuple[float, int]]:
    """Seconds until the end of each stage, and the memory then, in bytes."""
    arguments = [sys.executable, "-c", script, str(time.time()), *command]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    stages: dict[str, tuple[float, int]] = {}
    for stage, seconds, used in re.findall(rf"^{MARK} (.+) ([\d.]+) (\d+)$", done.stderr, re.M):
        stages.setdefault(
            stage, (float(seconds), int(used))
        )  # the first of several, such as rows of the validation split
    return stages


def print_imports(command: Sequence[str], number: int) -> None:
    """The slowest imports of a command, among those that no slower listed import contains whole."""
    done = run_slmtune(command, "-X", "importtime")
    lines = re.findall(r"^import time: +\d+ \| +(\d+) \| ( *)(\S+)$", done.stderr, re.M)
    slowest = sorted(((int(total) / 1e6, name) for total, _, name in lines), reverse=True)
    print(f"{'import':<28} seconds, with what it imports")
    for seconds, name in slowest[:number]:
        print(f"{name:<44} {seconds:.2f}")


def run_slmtune(command: Sequence[str], *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; its errors end this program."""
    done = subprocess.run(
        [sys.executable, *flags, "-m", "finetune", *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done


if __name__ == "__main__":
    main()
