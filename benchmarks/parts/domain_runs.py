"""The studies of benchmarks/domains.py, and their runs: each is prepared, trained and evaluated by the commands of slmtune.

A result is a file in the work folder. It is read instead of being measured again, so a stopped benchmark goes on.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from parts.child import run

SLMTUNE = [sys.executable, "-m", "finetune"]
# What is kept of a task in a report: figures, and nothing of its rows.
FIGURES = (
    *("n", "metric", "majority", "baseline", "base", "few_shot", "shots", "adapter", "delta", "ci95", "p_value"),
    *("comparisons", "clean"),
)
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
    """What the numbers depend on besides the study and the seed; `limit` is the number of rows per split, None for all."""

    train: str
    limit: int | None
    machine: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Run:
    """One study with one seed: rows by split, figures on the test split, seconds and bytes."""

    study: str
    seed: int
    conditions: Conditions
    rows: Mapping[str, int]
    figures: Mapping[str, Any]
    train_seconds: float
    eval_seconds: float
    peak_memory_bytes: int


def current_conditions(train: str, limit: int | None) -> Conditions:
    """The conditions of a run that starts now."""
    cpu = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    machine = (
        f"{os.cpu_count()} cores ({names[0] if names else platform.machine()}), Python {platform.python_version()}"
    )
    versions = {name: version(name) for name in ("slmtune", *LIBRARIES)}
    return Conditions(train, limit, machine, versions)


def measure(study: Study, seed: int, conditions: Conditions, work: Path) -> Run:
    """The result of a run: the stored one, or else a new one, which goes on where a stopped one ended.

    Raises:
        SystemExit: the stored result was measured under other conditions, or a command failed.
    """
    stored = work / f"{study.name}-seed{seed}.json"
    if stored.is_file():
        result = read_run(stored)
        if (result.conditions.train, result.conditions.limit) != (conditions.train, conditions.limit):
            raise SystemExit(f"{stored} was measured with other options of --train or --limit. Choose another --work")
        return result
    folder = work / f"{study.name}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    corpus, adapter, report = work / f"{study.domain}-{study.task}", folder / "adapter", folder / "eval"
    if not corpus.exists():
        words = ["prepare", "--domain", study.domain, "--task", study.task, "--out", str(corpus)]
        _slmtune(folder, [*words, *([] if conditions.limit is None else ["--limit", str(conditions.limit)])])
    if not adapter.exists():
        words = ["train", "--domain", study.domain, "--corpus", str(corpus), "--model", study.model]
        resume = ["--resume"] if (folder / "adapter.checkpoints").exists() else []
        _slmtune(folder, [*words, "--seed", str(seed), "--out", str(adapter), *conditions.train.split(), *resume])
    words = [
        "eval",
        str(adapter),
        "--corpus",
        str(corpus),
        "--out",
        str(report),
        "--overwrite",
        "--allow-train-overlap",
    ]
    evaluation = _slmtune(folder, words)
    (task,) = evaluation["tasks"].values()
    training = json.loads((adapter / "manifest.json").read_text("utf-8"))["result"]
    counts = json.loads((corpus / "manifest.json").read_text("utf-8"))["counts"]
    result = Run(
        *(study.name, seed, conditions, counts, {name: task[name] for name in FIGURES if name in task}),
        train_seconds=training["seconds"],
        eval_seconds=evaluation["seconds"],
        peak_memory_bytes=training["peak_memory_bytes"],
    )
    aside = stored.with_suffix(".tmp")
    aside.write_text(json.dumps(asdict(result), indent=1) + "\n", "utf-8")
    aside.rename(stored)
    return result


def read_run(path: Path) -> Run:
    """A stored result."""
    data = json.loads(path.read_text("utf-8"))
    return Run(**data | {"conditions": Conditions(**data["conditions"])})


def _slmtune(folder: Path, words: list[str]) -> dict[str, Any]:
    print(f"{folder.name}: slmtune {words[0]}", file=sys.stderr, flush=True)
    return run(words[0], [*SLMTUNE, *words, "--json"], folder).object()
