"""The studies of benchmarks/domains.py: each is prepared, trained with several seeds and evaluated by the commands of slmtune.

What is done stays in the work folder. It is read instead of being done again, so a stopped benchmark goes on.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from parts.child import run

SLMTUNE = [sys.executable, "-m", "finetune"]
# What is kept of a task in a report: figures, and nothing of its rows.
FIGURES = (
    *("n", "metric", "majority", "baseline", "base", "few_shot", "shots", "vs", "adapter", "delta", "ci95", "p_value"),
    *("comparisons", "train_overlap"),
)
MATCHES = (
    "in_test",
    "near_test",
    "eval_",
)  # how the reasons begin for which `prepare` drops a row that matches a test row
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")


@dataclass(frozen=True)
class Study:
    """A model on a task of a domain; its settings are the defaults of the domain's recipe."""

    name: str
    title: str
    model: str
    domain: str
    task: str


STUDIES = (
    Study("tfns", "TFNS, SmolLM2-135M QLoRA", "smollm2-135m", "finance", "sentiment"),
    Study("tfns-encoder", "TFNS, MiniLM-L6 LoRA", "minilm-l6", "finance", "sentiment"),
    Study("pubmedqa", "PubMedQA, SmolLM2-135M QLoRA", "smollm2-135m", "health", "evidence"),
    Study("banking77", "Banking77, SmolLM2-135M QLoRA", "smollm2-135m", "customer-service", "banking77"),
)


@dataclass(frozen=True)
class Conditions:
    """What the numbers depend on besides study and seeds; `limit` is the number of rows per split, None for all."""

    train: str
    limit: int | None
    machine: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Training:
    """A training with one seed: seconds in all, rows' tokens per second while it trained, and peak memory in bytes."""

    seed: int
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    precision: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """A study: rows by split, training rows dropped because they match test rows, and figures on the test split.

    The adapter of the first seed is `adapter` in the figures, and those of the others are in `vs`, named after their seeds.
    """

    study: str
    conditions: Conditions
    rows: Mapping[str, int]
    matching_rows: int
    trainings: Sequence[Training]
    figures: Mapping[str, Any]
    forgetting: Mapping[str, Any] | None
    eval_seconds: float

    @property
    def seeds(self) -> list[int]:
        """The seeds, in the order of the trainings."""
        return [training.seed for training in self.trainings]

    def scores(self, metric: str) -> list[float]:
        """The score of each seed's adapter on the test split."""
        return [float(each[metric]) for each in (self.figures["adapter"], *self.figures.get("vs", {}).values())]


def current_conditions(train: str, limit: int | None) -> Conditions:
    """The conditions of a run that starts now."""
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in cpu if line.startswith("model name")]
    flags = {flag for line in cpu if line.startswith("flags") for flag in line.split()}
    kind = ", ".join([names[0] if names else platform.machine(), *(["AMX"] if "amx_bf16" in flags else [])])
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    machine = ", ".join([*gpu, f"{os.cpu_count()} cores ({kind})", f"Python {platform.python_version()}"])
    return Conditions(train, limit, machine, {name: version(name) for name in ("slmtune", *LIBRARIES)})


def measure(study: Study, seeds: int, conditions: Conditions, work: Path) -> Result:
    """The result of a study: the stored one, or else a new one, which goes on where a stopped one ended.

    Raises:
        SystemExit: the stored result was measured under other conditions, or a command failed.
    """
    if (stored := read_result(study, work)) is not None:
        made = stored.conditions.train, stored.conditions.limit, len(stored.trainings)
        if made != (conditions.train, conditions.limit, seeds):
            raise SystemExit(
                f"{_file(study, work)} was measured with other options of --train, --limit or --seeds. Choose another --work"
            )
        return stored
    folder, corpus = work / study.name, work / f"{study.domain}-{study.task}"
    folder.mkdir(parents=True, exist_ok=True)
    if not corpus.exists():
        words = ["prepare", "--domain", study.domain, "--task", study.task, "--out", str(corpus)]
        _slmtune(folder, [*words, *([] if conditions.limit is None else ["--limit", str(conditions.limit)])])
    trainings = [_train(study, seed, conditions, folder, corpus) for seed in range(seeds)]
    first, *others = (_adapter(folder, seed) for seed in range(seeds))
    words = ["eval", str(first), "--corpus", str(corpus), "--out", str(folder / "eval"), "--allow-train-overlap"]
    for seed, other in enumerate(others, 1):
        words += ["--vs", f"seed {seed}={other}"]
    evaluation = _slmtune(folder, [*words, "--overwrite"])
    (task,) = evaluation["tasks"].values()
    manifest = json.loads((corpus / "manifest.json").read_text("utf-8"))
    result = Result(
        study=study.name,
        conditions=conditions,
        rows=manifest["counts"],
        matching_rows=sum(count for reason, count in manifest["dropped"].items() if reason.startswith(MATCHES)),
        trainings=trainings,
        figures={name: task[name] for name in FIGURES if name in task},
        forgetting=evaluation.get("forgetting"),
        eval_seconds=evaluation["seconds"],
    )
    aside = _file(study, work).with_suffix(".tmp")
    aside.write_text(json.dumps(asdict(result), indent=1) + "\n", "utf-8")
    aside.rename(_file(study, work))
    return result


def read_result(study: Study, work: Path) -> Result | None:
    """The stored result of a study, if there is one."""
    if not _file(study, work).is_file():
        return None
    data = json.loads(_file(study, work).read_text("utf-8"))
    trainings = [Training(**each) for each in data["trainings"]]
    return Result(**data | {"conditions": Conditions(**data["conditions"]), "trainings": trainings})


def _train(study: Study, seed: int, conditions: Conditions, folder: Path, corpus: Path) -> Training:
    adapter = _adapter(folder, seed)
    if not adapter.exists():
        words = ["train", "--domain", study.domain, "--corpus", str(corpus), "--model", study.model]
        resume = ["--resume"] if adapter.with_name(f"{adapter.name}.checkpoints").exists() else []
        _slmtune(folder, [*words, "--seed", str(seed), "--out", str(adapter), *conditions.train.split(), *resume])
    manifest = json.loads((adapter / "manifest.json").read_text("utf-8"))
    figures = manifest["result"]
    names = ("seconds", "tokens_per_second", "peak_memory_bytes", "precision")
    settings = ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "lora_r", "max_length")
    return Training(
        seed=seed,
        **{name: figures[name] for name in names},
        settings={name: manifest["config"][name] for name in settings},
    )


def _adapter(folder: Path, seed: int) -> Path:
    return folder / f"adapter-seed{seed}"


def _file(study: Study, work: Path) -> Path:
    return work / f"{study.name}.json"


def _slmtune(folder: Path, words: list[str]) -> dict[str, Any]:
    print(f"{folder.name}: slmtune {' '.join(words)}", file=sys.stderr, flush=True)
    return run(words[0], [*SLMTUNE, *words, "--json"], folder).object()
