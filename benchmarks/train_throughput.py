"""Speed, memory and losses of `trl sft`, an SFTTrainer script, `slmtune train` and Unsloth, in turn, on the same rows.

    python benchmarks/train_throughput.py [--model smollm2-135m] [--corpus CORPUS] [--task classification] [--steps 20]
        [--batch 8] [--rounds 3] [--cli-threads N] [--sft "OPTIONS"] [--slmtune "OPTIONS"] [--unsloth PYTHON] [--json FILE]

  trl      `trl sft` as in its documentation, with --use_cpu: model, data, 4-bit base, LoRA shape, batch, steps and
           learning rate are set, everything else is TRL's default. Its launcher uses one core unless OMP_NUM_THREADS is
           set; --cli-threads sets it for trl only.
  script   benchmarks/parts/sft_script.py, the best that SFTTrainer's public options allow; --sft "..." changes them.
  slmtune  the installed command with its defaults.
  unsloth  benchmarks/parts/unsloth_script.py with --unsloth, the Python of an environment with Unsloth.

Each trains on the same steps × batch rows exactly once, in any order; they are drawn from the corpus (default: the
bundled finance sample). NF4 base with double quantisation, LoRA r=16 alpha=32 on all linear layers. Every round has
another seed for LoRA matrices and order, so the spread of the losses is the noise between two runs.

Prints the median of the rounds of:
  tokens/s       tokens of the rows, without padding, per second of the training loop alone. script counts its tokens
                 itself; slmtune reports them; for trl the rows are tokenised in the same way and counted, and the count
                 is compared with what it logs (every tenth step). Its rows have one more token: the template's last
                 line break.
  supervised/s   tokens with loss per second of the loop. trl puts loss on prompts too, by default for `messages`.
  peak           maximum GiB resident in one process (wait4), from start to exit, including slmtune's evaluation
  train loss     mean over the steps, as each trainer reports it; trl's covers other tokens, so it is not comparable
  held-out       nats per answer token of the validation rows, by benchmarks/parts/held_out_loss.py for all of them
  GFLOP/s        useful operations per second (benchmarks/parts/model_work.py; without attention)
  of mm          that rate as a share of the float32 rate of torch.mm in the same round. Every token of every row counts
                 as computed. A trainer that computes a shared prompt only once executes fewer operations; `executed`
                 counts only the tokens that it reports as computed (`computed_tokens`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parts.child import CompletedRun, run
from parts.throughput_table import Measurement, head, line, notes, ratios

PARTS = Path(__file__).parent / "parts"
SLMTUNE = [sys.executable, "-m", "finetune"]


@dataclass(frozen=True)
class Bench:
    """What all training runs have in common."""

    arguments: argparse.Namespace
    folder: Path
    rows: dict[str, Any]  # from parts/training_rows.py
    recipe: dict[str, Any]  # of slmtune; the others get the same settings
    work: dict[str, int]  # from parts/model_work.py
    environment: dict[str, str]

    @property
    def corpus(self) -> str:
        """The corpus that all train on."""
        return str(self.folder / "rows")

    @property
    def warmup(self) -> float:
        """The share of the steps in which the learning rate rises: none if that is one, as in slmtune; its rate would be 0."""
        share = float(self.recipe["warmup_ratio"])
        return share if share * self.arguments.steps > 1 else 0.0

    def train(self, trainer: str, number: int) -> tuple[CompletedRun, dict[str, Any]]:
        """Train once; the result has steps, seconds, tokens, supervised_tokens and train_loss."""
        out, seed = self.folder / trainer, self.recipe["seed"] + number
        command, read = TRAINERS[trainer](self, out, seed)
        environment = dict(self.environment)
        if trainer == "trl" and self.arguments.cli_threads:
            environment["OMP_NUM_THREADS"] = str(self.arguments.cli_threads)
        shutil.rmtree(out, ignore_errors=True)
        completed = run(trainer, command, self.folder, environment)
        return completed, read(completed)


Trainer = Callable[[Bench, Path, int], tuple[list[str], Callable[[CompletedRun], dict[str, Any]]]]


def trl_cli(bench: Bench, out: Path, seed: int) -> tuple[list[str], Callable[[CompletedRun], dict[str, Any]]]:
    """`trl sft` on a CPU; without checkpoints, whose writing would be timed."""
    recipe, arguments = bench.recipe, bench.arguments
    command = f"""{Path(sys.executable).with_name("trl")} sft --use_cpu --model_name_or_path {bench.rows["model"]}
        --dataset_name {bench.corpus} --output_dir {out} --load_in_4bit --use_bnb_nested_quant --use_peft
        --lora_r {recipe["lora_r"]} --lora_alpha {recipe["lora_alpha"]} --lora_dropout {recipe["lora_dropout"]}
        --lora_target_modules all-linear --per_device_train_batch_size {arguments.batch} --max_steps {arguments.steps}
        --learning_rate {recipe["learning_rate"]} --lr_scheduler_type {recipe["lr_scheduler_type"]}
        --warmup_steps {bench.warmup} --seed {seed} --save_strategy no"""

    def read(completed: CompletedRun) -> dict[str, Any]:
        counts = bench.rows["templated"]
        logged = [float(number) for number in re.findall(r"'num_tokens': '?([\d.e+]+)", completed.output)]
        if (
            logged and arguments.steps % 10 == 0 and abs(logged[-1] / counts["tokens"] - 1) > 0.001
        ):  # 4 digits are logged
            raise SystemExit(f"trl trained on {logged[-1]:.0f} tokens, and its rows have {counts['tokens']}")
        seconds, loss = (
            float(re.findall(rf"'{name}': '?([\d.e+-]+)", completed.output)[-1])
            for name in ("train_runtime", "train_loss")
        )
        supervised = counts["supervised"]
        shared = {"tokens": counts["tokens"], "supervised_tokens": supervised, "steps": arguments.steps}
        return shared | {"seconds": seconds, "train_loss": loss}

    return command.split(), read


def sft_script(bench: Bench, out: Path, seed: int) -> tuple[list[str], Callable[[CompletedRun], dict[str, Any]]]:
    """The SFTTrainer script."""
    command = _script(bench, "sft_script.py", bench.corpus, out, seed)
    return [sys.executable, *command, *bench.arguments.sft.split()], CompletedRun.object


def _script(bench: Bench, name: str, rows: str, out: Path, seed: int) -> list[str]:
    """A script of benchmarks/parts with the settings that all have in common."""
    recipe, arguments = bench.recipe, bench.arguments
    command = f"""{PARTS / name} {rows} {bench.rows["model"]} {out}
        --steps {arguments.steps} --batch {arguments.batch} --learning-rate {recipe["learning_rate"]} --seed {seed}
        --schedule {recipe["lr_scheduler_type"]} --warmup {bench.warmup} --max-length {recipe["max_length"]}
        --rank {recipe["lora_r"]} --alpha {recipe["lora_alpha"]}"""
    return command.split()


def slmtune(bench: Bench, out: Path, seed: int) -> tuple[list[str], Callable[[CompletedRun], dict[str, Any]]]:
    """The installed command."""
    arguments = bench.arguments
    command = f"""train --corpus {bench.corpus} --out {out} --model {bench.rows["model"]} --max-steps {arguments.steps}
        --per-device-train-batch-size {arguments.batch} --seed {seed} --json {arguments.slmtune}"""

    def read(completed: CompletedRun) -> dict[str, Any]:
        result = completed.object()
        return result | {"seconds": result["tokens"] / result["tokens_per_second"]}

    return [*SLMTUNE, *command.split()], read


def unsloth(bench: Bench, out: Path, seed: int) -> tuple[list[str], Callable[[CompletedRun], dict[str, Any]]]:
    """The script for Unsloth, in its own environment."""
    return [
        str(bench.arguments.unsloth),
        *_script(bench, "unsloth_script.py", bench.rows["tokens"], out, seed),
    ], CompletedRun.object


TRAINERS: dict[str, Trainer] = {"trl": trl_cli, "script": sft_script, "slmtune": slmtune, "unsloth": unsloth}


def measure(bench: Bench, number: int) -> tuple[list[Measurement], dict[str, Any]]:
    """Measure one round: the rate of torch.mm, each trainer in turn, then the held-out loss of the adapters."""
    machine = run("gemm", [sys.executable, str(PARTS / "gemm_rate.py")], bench.folder, bench.environment).object()
    results = {name: bench.train(name, number) for name in bench.arguments.only}
    evaluator = [sys.executable, str(PARTS / "held_out_loss.py"), bench.corpus, bench.rows["model"]]
    adapters = [f"{name}={bench.folder / name}" for name in results]
    losses = run("held-out", [*evaluator, *adapters], bench.folder, bench.environment).object()
    measurements = []
    for name, (completed, result) in results.items():
        computed = result.get("computed_tokens") or result["tokens"]
        head = result["supervised_tokens"] * bench.work["flop_supervised"]
        flops, executed = (
            (count * bench.work["flop_token"] + head) / result["seconds"] for count in (result["tokens"], computed)
        )
        measurements.append(
            Measurement(
                trainer=name,
                round=number,
                steps=result["steps"],
                tokens=result["tokens"],
                supervised=result["supervised_tokens"],
                computed=computed,
                seconds=result["seconds"],
                wall=completed.seconds,
                peak=completed.peak,
                train_loss=result["train_loss"],
                held_out=losses[name],
                flops=flops,
                executed_flops=executed,
                mm_flops=machine["flops"],
            )
        )
    return measurements, machine | {"base_held_out": losses["base"]}


def report(bench: Bench, runs: list[Measurement], machines: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the table of medians and the ratios, and return everything as one object."""
    print("\nmedians of the rounds")
    for name in TRAINERS:
        if mine := [run for run in runs if run.trainer == name]:
            print("\n".join([line(name, mine), *notes(mine)]))
    compared = ratios(runs, "slmtune", ("trl", "script", "unsloth"))
    for name, ratio in compared.items():
        values = ", ".join(f"{value:.3f}" for value in ratio["rounds"])
        print(f"{name:<34} {ratio['median']:>7.3f}   ({values})")
    return {
        "arguments": {name: str(value) for name, value in vars(bench.arguments).items()},
        "recipe": bench.recipe,
        "rows": bench.rows,
        "work": bench.work,
        "machines": machines,
        "runs": [asdict(run) | {"tokens_per_second": run.rate} for run in runs],
        "ratios": compared,
    }


def prepare(arguments: argparse.Namespace, folder: Path) -> Bench:
    """Write the rows, and get slmtune's recipe, which all use."""
    environment = os.environ | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    corpus = arguments.corpus or folder / "corpus"
    if arguments.corpus is None:
        command = [*SLMTUNE, "prepare", "--domain", "finance", "--sample", "--output-dir", str(corpus)]
        run("prepare", command, folder, environment)
    cut = [sys.executable, str(PARTS / "training_rows.py"), str(corpus), str(folder / "rows"), arguments.model]
    cut += ["--rows", str(arguments.steps * arguments.batch), "--held-out", str(arguments.held_out)]
    rows = run("rows", cut + (["--task", arguments.task] if arguments.task else []), folder, environment).object()
    environment["HF_HUB_OFFLINE"] = "1"  # the model is here now
    ask = [*SLMTUNE, "train", "--corpus", str(folder / "rows"), "--out", str(folder / "plan"), "--model", rows["model"]]
    plan = run("plan", [*ask, "--dry-run", "--json", *arguments.slmtune.split()], folder, environment)
    recipe = plan.object()["recipe"]
    count = [sys.executable, str(PARTS / "model_work.py"), rows["model"], "--rank", str(recipe["lora_r"])]
    return Bench(arguments, folder, rows, recipe, run("work", count, folder, environment).object(), environment)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="preset or folder")
    parser.add_argument("--corpus", type=Path, help="corpus to draw rows from, instead of the bundled finance sample")
    parser.add_argument("--task", help="only rows of this task, such as classification")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=64, help="maximum number of validation rows")
    parser.add_argument("--cli-threads", type=int, help="OMP_NUM_THREADS of trl sft")
    parser.add_argument("--sft", default="", help="more options for parts/sft_script.py")
    parser.add_argument("--slmtune", default="", help="more options for slmtune train")
    parser.add_argument("--unsloth", type=Path, help="Python of an environment with Unsloth, which then takes part")
    parser.add_argument("--only", help="trainers to run, in this order, separated by commas")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments = parser.parse_args()
    there = [name for name in TRAINERS if name != "unsloth" or arguments.unsloth]
    arguments.only = arguments.only.split(",") if arguments.only else there
    if unknown := set(arguments.only) - set(there):
        parser.error(f"--only: {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        bench = prepare(arguments, Path(folder))
        counts = bench.rows["rendered"]
        print(
            f"{bench.rows['rows']} rows, {counts['tokens']} tokens, {counts['supervised']} supervised; held out "
            f"{bench.rows['held_out']}; {arguments.steps} steps of {arguments.batch}; learning rate "
            f"{bench.recipe['learning_rate']}"
        )
        runs: list[Measurement] = []
        machines: list[dict[str, Any]] = []
        for number in range(arguments.rounds):
            measurements, machine = measure(bench, number)
            if not machines:
                print(json.dumps({name: machine[name] for name in machine if name not in ("shapes", "flops")}))
                print(head())
            print(
                f"round {number + 1}: torch.mm {machine['flops'] / 1e9:.1f} GFLOP/s, seed {bench.recipe['seed'] + number}"
            )
            print("\n".join(line(run.trainer, [run]) for run in measurements), flush=True)
            runs += measurements
            machines.append(machine)
        result = report(bench, runs, machines)
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
