"""What `slmtune prepare` is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from finetune.errors import ConfigError, InputError, did_you_mean
from finetune.prepare.prompts import load_prompt
from finetune.prepare.shapes import NAMES
from finetune.prepare.split import DEFAULT_RATIO, parse_ratio
from finetune.recipe import CUSTOM_DOMAIN, Domain
from finetune.records import Split


@dataclass(frozen=True)
class PrepareRequest:
    """The options of `slmtune prepare`; their defaults stand here and nowhere else."""

    output_dir: Path
    domain: str | None = None
    sources: tuple[str, ...] = ()  # paths or hf://…; they replace the recipe's
    sample: bool = False  # the rows that come with the domain, instead of the Hub's
    tasks: tuple[str, ...] = ()  # of the domain; empty: all
    columns: Mapping[str, str] = field(default_factory=dict)  # name -> column
    instruction: str | None = None  # the question of a classification without a domain
    split_ratio: str | None = None  # train/validation/test; None: split.DEFAULT_RATIO
    limit: int | None = None  # rows kept of each source and split
    seed: int = 42
    dedup: bool = True
    scrub: bool = True
    on_error: Literal["fail", "skip"] = "fail"
    overwrite: bool = False
    accept_noncommercial: bool = False
    license: str | None = None  # of local files


@dataclass(frozen=True)
class PrepareResult:
    """What was made; `labels` counts the labels of each classification source."""

    corpus: Path
    splits: dict[str, int]
    dropped: dict[str, int]
    scrubbed: dict[str, int]
    sources: list[dict[str, Any]]
    fingerprint: str
    seconds: float
    by_task: dict[str, int]
    labels: dict[str, dict[str, int]]


def check_request(request: PrepareRequest, domain: Domain | None) -> None:
    """Look at every option before anything is read.

    Raises:
        ConfigError: all problems at once.
    """
    problems = []
    if request.limit is not None and request.limit < 1:
        problems.append(f"--limit {request.limit} keeps no row. Give a number of rows above 0")
    if request.seed < 0:
        problems.append(f"--seed {request.seed} is negative. Give 0 or more")
    if request.on_error not in ("fail", "skip"):
        problems.append(f"--on-error {request.on_error} is unknown. Give fail or skip")
    if request.columns and not request.sources:
        problems.append("--map names columns of your own rows. Give them with --source")
    known = NAMES | (domain_columns(domain) if domain else frozenset())
    for name in sorted(set(request.columns) - known):
        problems.append(f"--map {name}=…: no shape has {name!r}. {did_you_mean(name, sorted(known))}")
    tasks = domain.recipe.tasks if domain else {}
    for task in request.tasks:
        if task not in tasks:
            problems.append(f"--task {task}: the domain has no such task. {did_you_mean(task, sorted(tasks))}")
    try:
        ratio_of(request)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("command line", problems)


def ratio_of(request: PrepareRequest) -> dict[Split, float]:
    """The shares of train, validation and test."""
    return parse_ratio(request.split_ratio or DEFAULT_RATIO)


def domain_columns(domain: Domain) -> frozenset[str]:
    """All columns that the prompts of a domain read."""
    return frozenset[str]().union(*(load_prompt(domain, task).columns for task in domain.recipe.tasks))


def describe_request(request: PrepareRequest, uris: Sequence[str], domain: Domain | None) -> dict[str, Any]:
    """The request as the manifest keeps it: what decides the rows, and no path of this machine."""
    return {
        "domain": domain.name if domain else CUSTOM_DOMAIN,
        "sources": list(uris),
        "sample": request.sample,
        "tasks": sorted(request.tasks),
        "columns": dict(sorted(request.columns.items())),
        "instruction": request.instruction,
        "split_ratio": request.split_ratio or DEFAULT_RATIO,
        "limit": request.limit,
        "seed": request.seed,
        "dedup": request.dedup,
        "scrub": request.scrub,
        "on_error": request.on_error,
    }
