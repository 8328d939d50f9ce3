"""What `slmtune prepare` is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from finetune.errors import ConfigError, InputError, did_you_mean
from finetune.prepare.rows.prompts import load_prompt
from finetune.prepare.rows.shapes import NAMES
from finetune.prepare.splits.shares import DEFAULT_RATIO, parse_ratio
from finetune.recipe import CUSTOM_DOMAIN, Domain
from finetune.records import Split


@dataclass(frozen=True)
class PrepareRequest:
    """The options of `slmtune prepare`; their defaults stand here and nowhere else."""

    output_dir: Path
    domain: str | None = None
    sources: tuple[str, ...] = ()  # paths, patterns or URLs; they replace the recipe's
    sample: bool = False  # the rows that come with the domain, instead of the Hub's
    tasks: tuple[str, ...] = ()  # of the domain; empty: those that the recipe reads by default
    include: tuple[str, ...] = ()  # sources of the recipe that are off by default
    columns: Mapping[str, str] = field(default_factory=dict)  # name -> column
    instruction: str | None = None  # the question of a classification without a domain
    instruct: bool = False  # questions and answers out of documents, by rules
    chunk_tokens: int = 768  # of a document's chunk; with the chat template it fits into train's 1,024
    language: str | None = None  # codes, "en,de"; None: the recipe's, or any
    quality: bool = True
    split_ratio: str | None = None  # train/validation/test; None: split.DEFAULT_RATIO
    split_by_time: str | None = None  # COLUMN, or COLUMN=VALIDATION_FROM/TEST_FROM
    stratify: bool = False  # exact shares of each label, at the price that added rows may move old ones
    limit: int | None = None  # rows kept of each source and split
    seed: int = 42
    dedup: bool = True
    near_duplicates: float = 0.8  # Jaccard similarity of word 5-grams; 1: only exact ones
    against: tuple[Path, ...] = ()  # earlier corpora whose rows are not taken again
    decontaminate: tuple[str, ...] = ()  # further eval sets: paths or URLs
    recipe_evals: bool = True  # compare with the eval sets that the recipe names
    scrub: bool = True
    on_error: Literal["fail", "skip"] = "fail"
    overwrite: bool = False
    accept_noncommercial: bool = False
    license: str | None = None  # of local files
    workers: int = 1  # processes; the corpus is the same with any number


@dataclass(frozen=True)
class PrepareResult:
    """What was made; `labels` counts the labels of each classification source.

    `splits` sums to the rows of the corpus, and with `dropped` to the rows read (documents give several rows or none).
    `clusters` counts the kept rows that others nearly repeated, `contaminated` the rows that gave away an eval set.
    """

    corpus: Path
    splits: dict[str, int]
    dropped: dict[str, int]
    scrubbed: dict[str, int]
    sources: list[dict[str, Any]]
    fingerprint: str
    seconds: float
    by_task: dict[str, int]
    labels: dict[str, dict[str, int]]
    license: str
    clusters: int
    contaminated: int
    evals: list[str]
    disjoint: str


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
    if request.workers < 1:
        problems.append(f"--workers {request.workers} does nothing. Give 1 or more")
    if request.chunk_tokens < 32:
        problems.append(f"--chunk-tokens {request.chunk_tokens} is too short for a sentence. Give 32 or more")
    if not 0.5 <= request.near_duplicates <= 1:
        problems.append(f"--near-duplicates {request.near_duplicates} cannot be used. Give a similarity from 0.5 to 1")
    if request.split_by_time is not None and request.stratify:
        problems.append("--split-by-time and --stratify exclude each other. Give one of the two")
    if request.columns and not request.sources:
        problems.append("--map names columns of your own rows. Give them with --source")
    known = NAMES | (domain_columns(domain) if domain else frozenset())
    for name in sorted(set(request.columns) - known):
        problems.append(f"--map {name}=…: no shape has {name!r}. {did_you_mean(name, sorted(known))}")
    tasks = domain.recipe.tasks if domain else {}
    for task in request.tasks:
        if task not in tasks:
            problems.append(f"--task {task}: the domain has no such task. {did_you_mean(task, sorted(tasks))}")
    listed = [source.id for source in (*domain.recipe.sources, *domain.recipe.sample)] if domain else []
    for name in request.include:
        if name not in listed:
            problems.append(f"--include {name}: the domain has no such source. {did_you_mean(name, listed)}")
    try:
        ratio_of(request)
        time_rule(request)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("command line", problems)


def ratio_of(request: PrepareRequest) -> dict[Split, float]:
    """The shares of train, validation and test."""
    return parse_ratio(request.split_ratio or DEFAULT_RATIO)


def time_rule(request: PrepareRequest) -> tuple[str, tuple[float, float] | None] | None:
    """The column of `--split-by-time` and the moments from which rows are validation and test, if they are given.

    Raises:
        InputError: the moments cannot be read, or are in the wrong order.
    """
    if request.split_by_time is None:
        return None
    column, separator, moments = request.split_by_time.partition("=")
    if not separator:
        return column, None
    first, _, second = moments.partition("/")
    validation, test = moment_of(first), moment_of(second)
    if validation is None or test is None or validation >= test:
        raise InputError(
            f"--split-by-time {request.split_by_time} cannot be used. Write it as COLUMN=VALIDATION_FROM/TEST_FROM, for "
            "example date=2024-01-01/2024-07-01"
        )
    return column, (validation, test)


def moment_of(text: str) -> float | None:
    """Seconds since 1970 of a date, a time in ISO 8601 or a number of seconds; None for anything else."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            return None
        return number if isfinite(number) else None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def domain_columns(domain: Domain) -> frozenset[str]:
    """All columns that the prompts of a domain read."""
    return frozenset[str]().union(*(load_prompt(domain, task).columns for task in domain.recipe.tasks))


def describe_request(request: PrepareRequest, uris: Sequence[str], domain: Domain | None) -> dict[str, Any]:
    """The request as the manifest keeps it: what decides the rows, and no path of this machine."""
    hidden = {"output_dir", "overwrite", "workers", "against", "decontaminate", "sources", "accept_noncommercial"}
    values = {item.name: getattr(request, item.name) for item in fields(request) if item.name not in hidden}
    return values | {
        "domain": domain.name if domain else CUSTOM_DOMAIN,
        "sources": list(uris),
        "tasks": sorted(request.tasks),
        "include": sorted(request.include),
        "columns": dict(sorted(request.columns.items())),
        "split_ratio": request.split_ratio or DEFAULT_RATIO,
        "against": [path.name for path in request.against],
        "decontaminate": [uri if "://" in uri else Path(uri).name for uri in request.decontaminate],
    }
