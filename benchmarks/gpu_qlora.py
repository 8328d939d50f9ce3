"""QLoRA on a GPU: tokens per second, model FLOP utilisation, peak memory and loss of slmtune, SFTTrainer and Unsloth.

    python benchmarks/gpu_qlora.py [--models llama-3.2-1b,...] [--lengths 512,2048,8192] [--trainers slmtune,sft]
        [--unsloth PYTHON] [--tokens-per-step 16384] [--steps 12] [--checkpointing] [--table FILE] [--json FILE]
    python benchmarks/gpu_qlora.py --smoke      a Gemma 2 of a few thousand weights, on any machine

Weights are random, in the published shapes of SmolLM2 135M, Qwen2.5 0.5B and 1.5B, Llama 3.2 1B, Phi-2, Gemma 2 2B and
Mistral 7B; nothing is downloaded. Every row has the same length; half of it is the answer, and only the answer carries
loss. NF4 with double quantisation, LoRA r=16 alpha=32 on all linear layers, bfloat16, paged 8-bit AdamW, no activation
checkpointing without --checkpointing. A step has --tokens-per-step tokens, at least one row. Every point runs in a separate
process: one that runs out of memory is a row of the table. The first steps (--warm-up) are trained but not timed. Unsloth
is measured if it is installed here, or in the environment whose interpreter --unsloth names.

Prints a Markdown table, and writes it to --table: tokens per second; MFU, the useful operations per second
(benchmarks/parts/model_work.py, attention included) as a share of the bfloat16 rate that torch.mm reaches in the same run;
peak memory that torch reserved on the GPU, with its context; mean training loss; tokens per second divided by SFTTrainer's.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parts.child import CompletedRun, run

PARTS = Path(__file__).parent / "parts"
MODELS = "smollm2-135m,qwen2.5-0.5b,qwen2.5-1.5b,llama-3.2-1b,phi-2,gemma-2-2b,mistral-7b"
HEADER = "| model | length | rows per step | trainer | tokens/s | MFU | peak GiB | loss | of SFTTrainer |"
OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)


@dataclass(frozen=True)
class Point:
    """One training run: its model, row length and trainer, and its figures, or the reason for its `failure`."""

    model: str
    length: int
    batch: int
    trainer: str
    rate: float | None = None  # tokens per second
    mfu: float | None = None
    peak: int | None = None  # bytes
    loss: float | None = None  # mean over the steps, in nats per supervised token
    failure: str = ""

    def line(self, sft: float | None) -> str:
        """A row of the Markdown table."""
        cells: list[Any] = [self.model, f"{self.length:,}", self.batch, self.trainer]
        if self.rate is None or self.peak is None or self.mfu is None:
            cells += [self.failure.split(":")[0], "", "", "", ""]
        else:
            cells += [f"{self.rate:,.0f}", f"{self.mfu:.1%}", f"{self.peak / 2**30:.2f}", f"{self.loss:.3f}"]
            cells += [f"{self.rate / sft:.2f}" if sft else ""]
        return f"| {' | '.join(map(str, cells))} |"


@dataclass(frozen=True)
class Bench:
    """What all points have in common."""

    arguments: argparse.Namespace
    folder: Path
    mm_flops: float
    environment: dict[str, str]

    def show(self, text: str) -> None:
        """Print text, and add it to the file of the table."""
        print(text, flush=True)
        if self.arguments.table:
            with self.arguments.table.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def part(self, name: str, *options: object) -> dict[str, Any]:
        """Run a script of parts/ and return what it prints."""
        command = [sys.executable, str(PARTS / f"{name}.py"), *map(str, options)]
        return run(name, command, self.folder, self.environment).object()


def train(bench: Bench, trainer: str, length: int, batch: int) -> CompletedRun:
    """Train on the rows in the folder; the run may fail."""
    arguments, out = bench.arguments, bench.folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    corpus, model, python = bench.folder / "corpus", bench.folder / "model", sys.executable
    if trainer == "slmtune":
        command = f"""-m finetune train --corpus {corpus} --out {out} --model {model} --max-steps {arguments.steps}
            --per-device-train-batch-size {batch} --max-length {length} --learning-rate 2e-4 --eval-steps 0
            --logging-steps 1 --json {"--gradient-checkpointing" if arguments.checkpointing else ""}"""
    else:
        flags = ["--checkpointing"] * arguments.checkpointing + ["--unsloth"] * (trainer == "unsloth")
        command = f"""{PARTS / "gpu_sft.py"} {bench.folder / "tokens.jsonl"} {model} {out} --steps {arguments.steps}
            --batch {batch} --warm-up {arguments.warm_up} {" ".join(flags)}"""
        python = arguments.unsloth if trainer == "unsloth" else python
    return run("train", [python, *command.split()], bench.folder, bench.environment, check=False)


def steady_rate(journal: Path, warm_up: int, otherwise: float) -> float:
    """Tokens per second after the warm-up, from slmtune's log of every step; `otherwise` if the log has no such lines."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()] if journal.is_file() else []
    steps = {line["step"]: line for line in lines if "tokens" in line and "seconds" in line}
    if warm_up not in steps or max(steps) == warm_up:
        return otherwise
    first, last = steps[warm_up], steps[max(steps)]
    return float((last["tokens"] - first["tokens"]) / (last["seconds"] - first["seconds"]))


def measure(bench: Bench, model: str, flop: float, length: int, trainer: str) -> Point:
    """Measure one point on the rows in the folder; `flop` is the number of useful operations per token."""
    batch = max(1, bench.arguments.tokens_per_step // length)
    completed = train(bench, trainer, length, batch)
    text = f"{completed.output}\n{completed.messages}"
    if completed.code:
        reason = text.strip().splitlines()[-1] if text.strip() else f"exit code {completed.code}"
        failure = "out of memory" if completed.code == -9 or OUT_OF_MEMORY.search(text) else f"failed: {reason}"
        return Point(model, length, batch, trainer, failure=failure)
    result = completed.object()
    rate = float(result["tokens_per_second"])
    if trainer == "slmtune":
        rate = steady_rate(bench.folder / "out" / "training.jsonl", bench.arguments.warm_up, rate)
    peak, loss = int(result["peak_memory_bytes"]), float(result["train_loss"])
    return Point(model, length, batch, trainer, rate, rate * flop / bench.mm_flops, peak, loss)


def measure_model(bench: Bench, model: str, trainers: list[str]) -> list[Point]:
    """Measure all points of a model, and print each length when it is done."""
    arguments, points = bench.arguments, []
    shutil.rmtree(bench.folder / "model", ignore_errors=True)
    bench.part("random_model", model, bench.folder / "model")
    work = bench.part("model_work", bench.folder / "model")
    for length in map(int, arguments.lengths.split(",")):
        shutil.rmtree(bench.folder / "corpus", ignore_errors=True)
        rows = arguments.steps * max(1, arguments.tokens_per_step // length)
        tokens = bench.folder / "tokens.jsonl"
        options = ("--rows", rows, "--length", length, "--supervised", arguments.supervised, "--tokens", tokens)
        corpus = bench.part("exact_rows", bench.folder / "model", bench.folder / "corpus", *options)
        share = corpus["supervised"] / length
        flop = work["flop_token"] + share * work["flop_supervised"] + length * work["flop_attention"]
        of_length = [measure(bench, model, flop, length, trainer) for trainer in trainers]
        sft = next((point.rate for point in of_length if point.trainer == "sft"), None)
        bench.show("\n".join(point.line(sft) for point in of_length))
        points += of_length
    return points


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--lengths", default="512,2048,8192")
    parser.add_argument("--trainers", default="slmtune,sft")
    parser.add_argument("--unsloth", metavar="PYTHON", help="interpreter of an environment with Unsloth")
    parser.add_argument("--tokens-per-step", type=int, default=16384)
    parser.add_argument("--supervised", type=float, default=0.5, help="share of a row that is the answer")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm-up", type=int, default=4)
    parser.add_argument("--checkpointing", action="store_true", help="for all trainers")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    parser.add_argument("--table", type=Path, help="file for the table")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    if arguments.unsloth is None and importlib.util.find_spec("unsloth") is not None:
        arguments.unsloth = sys.executable
    if arguments.smoke:
        arguments.models, arguments.lengths = "tiny", "64"
        arguments.tokens_per_step, arguments.steps, arguments.warm_up = 256, 3, 1
    if arguments.table:
        arguments.table.unlink(missing_ok=True)
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        machine = Bench(arguments, Path(folder), 0, environment).part(
            "gemm_rate", "--seconds", 0.05 if arguments.smoke else 1
        )
        if machine["device"] == "cpu" and not arguments.smoke:
            print(
                "This benchmark needs a GPU with CUDA, and torch finds none. To try it without one: --smoke",
                file=sys.stderr,
            )
            raise SystemExit(2)
        trainers = [*arguments.trainers.split(","), *(["unsloth"] if arguments.unsloth else [])]
        bench = Bench(arguments, Path(folder), machine["flops"], environment)
        today = datetime.datetime.now(datetime.UTC).date()
        versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        where = machine["processor"] if machine["device"] == "cpu" else machine["device"]
        bench.show(f"{today}, {where}, Python {machine['python']}, {versions}.")
        bench.show(f"torch.mm: {bench.mm_flops / 1e12:.2f} TFLOP/s in {machine['dtype'].removeprefix('torch.')}.")
        bench.show(
            f"Unsloth: {'measured' if arguments.unsloth else 'not installed'}.\n\n{HEADER}\n|---|{'---:|' * 2}---|{'---:|' * 5}"
        )
        points = [point for model in arguments.models.split(",") for point in measure_model(bench, model, trainers)]
    for point in points:
        if point.failure:
            bench.show(f"\n{point.model}, {point.length}, {point.trainer}: {point.failure}")
    if arguments.json:
        result = {"date": str(today), "machine": machine, "points": [asdict(point) for point in points]}
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
