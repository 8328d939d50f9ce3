"""The studies of benchmarks/domains.py: each is prepared, trained with several seeds and evaluated by the commands of slmtune.

Corpora and adapters stay in the work folder, and figures in the folder of results. They are read instead of being made again.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Training:
    """A training with one seed: seconds in all, rows' tokens per second while it trained, and peak memory in bytes."""

    seed: int
    machine: str
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
    return Conditions(train, limit, {name: version(name) for name in ("slmtune", *LIBRARIES)})


def measure(study: Study, seeds: int, conditions: Conditions, work: Path, results: Path) -> Result:
    """The result of a study with `seeds` seeds: what `results` holds of it, and the seeds that are missing there.

    Each seed is trained, evaluated and stored by itself, so a stopped benchmark goes on where it ended.

    Raises:
        SystemExit: the stored result was measured under other conditions, or a command failed.
    """
    stored = read_result(study, results)
    if stored is not None and (stored.conditions.train, stored.conditions.limit) != (
        conditions.train,
        conditions.limit,
    ):
        raise SystemExit(
            f"{_file(study, results)} was measured with another --train or --limit. Choose another --results"
        )
    for seed in range(len(stored.trainings) if stored is not None else 0, seeds):
        stored = _measure_seed(study, seed, stored, conditions, work)
        results.mkdir(parents=True, exist_ok=True)
        aside = _file(study, results).with_suffix(".tmp")
        aside.write_text(json.dumps(asdict(stored), indent=1) + "\n", "utf-8")
        aside.rename(_file(study, results))
    assert stored is not None, "the script asks for one seed at least"
    return stored


def read_result(study: Study, results: Path) -> Result | None:
    """The stored result of a study, if there is one."""
    if not _file(study, results).is_file():
        return None
    data = json.loads(_file(study, results).read_text("utf-8"))
    trainings = [Training(**each) for each in data["trainings"]]
    return Result(**data | {"conditions": Conditions(**data["conditions"]), "trainings": trainings})


def _measure_seed(study: Study, seed: int, before: Result | None, conditions: Conditions, work: Path) -> Result:
    """Train and evaluate one seed; the first also measures the few-shot base and what the adapter has forgotten."""
    folder, corpus = work / study.name, work / f"{study.domain}-{study.task}"
    folder.mkdir(parents=True, exist_ok=True)
    if not corpus.exists():
        words = ["prepare", "--domain", study.domain, "--task", study.task, "--out", str(corpus)]
        _slmtune(folder, [*words, *([] if conditions.limit is None else ["--limit", str(conditions.limit)])])
    training = _train(study, seed, conditions, folder, corpus)
    words = ["eval", str(_adapter(folder, seed)), "--corpus", str(corpus), "--out", str(folder / f"eval-seed{seed}")]
    less = [] if before is None else ["--few-shot", "0", "--no-forgetting"]
    evaluation = _slmtune(folder, [*words, *less, "--allow-train-overlap", "--overwrite"])
    (task,) = evaluation["tasks"].values()
    if before is not None:
        return replace(
            before,
            trainings=[*before.trainings, training],
            figures={**before.figures, "vs": {**before.figures.get("vs", {}), f"seed {seed}": task["adapter"]}},
        )
    manifest = json.loads((corpus / "manifest.json").read_text("utf-8"))
    return Result(
        study=study.name,
        conditions=conditions,
        rows=manifest["counts"],
        matching_rows=sum(count for reason, count in manifest["dropped"].items() if reason.startswith(MATCHES)),
        trainings=[training],
        figures={name: task[name] for name in FIGURES if name in task},
        forgetting=evaluation.get("forgetting"),
        eval_seconds=evaluation["seconds"],
    )


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
        machine=_machine(),
        **{name: figures[name] for name in names},
        settings={name: manifest["config"][name] for name in settings},
    )


def _adapter(folder: Path, seed: int) -> Path:
    return folder / f"adapter-seed{seed}"


def _file(study: Study, results: Path) -> Path:
    return results / f"{study.name}.json"


def _slmtune(folder: Path, words: list[str]) -> dict[str, Any]:
    print(f"{folder.name}: slmtune {' '.join(words)}", file=sys.stderr, flush=True)
    return run(words[0], [*SLMTUNE, *words, "--json"], folder).object()


def _machine() -> str:
    import torch  # here: the page is written without it

    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in cpu if line.startswith("model name")]
    flags = {flag for line in cpu if line.startswith("flags") for flag in line.split()}
    kind = ", ".join([names[0] if names else platform.machine(), *(["AMX"] if "amx_bf16" in flags else [])])
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    threads, cores = torch.get_num_threads(), os.cpu_count()
    share = f"{cores} cores" if threads == cores else f"{threads} of {cores} cores"
    return ", ".join([*gpu, f"{share} ({kind})", f"Python {platform.python_version()}"])
