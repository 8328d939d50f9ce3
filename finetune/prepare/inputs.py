"""The inputs of a preparation: the request, checked before anything is read, its domain and its sources."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from finetune.artifacts import ensure_replaceable
from finetune.canary_key import is_key
from finetune.corpus.upload import Bucket
from finetune.errors import InputError, did_you_mean
from finetune.prepare.formats.encoding import is_encoding
from finetune.prepare.licenses import strictest
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.choose import NAMES
from finetune.prepare.rows.prompts import load_prompt
from finetune.prepare.sources.source import Source, open_earlier, open_sources, with_encoding
from finetune.prepare.splits.shares import parse_ratio
from finetune.prepare.splits.timestamps import parse_time_rule
from finetune.recipe import Domain, load_domain
from finetune.recipe.option_fields import check
from finetune.recipe.scrub import IDENTIFIERS
from finetune.scrub import Rules, Scrubber, make_rules

LANGUAGE = re.compile("[a-z]{2,3}")  # ISO 639


@dataclass(frozen=True)
class Inputs:
    """Everything known before rows are read; `license` is the licence of the corpus."""

    request: PrepareRequest
    domain: Domain | None
    sources: tuple[Source, ...]
    earlier: tuple[Source, ...]
    license: str
    scrubber: Scrubber | None = None

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """The earlier corpora, which are only compared with, followed by the sources."""
        return *self.earlier, *self.sources


def open_inputs(request: PrepareRequest) -> Inputs:
    """Check the request and find its sources, on the Hub if necessary.

    Raises:
        SlmtuneError: an option, a domain, a source or a licence cannot be used.
    """
    domain = load_domain(request.domain) if request.domain is not None else None
    check_request(request, domain)
    if request.address is None:
        ensure_replaceable(request.folder, overwrite=request.overwrite)
    else:
        Bucket.open(request.address).require_free(overwrite=request.overwrite)
    sources, earlier = open_sources(request, domain), open_earlier(request)
    if request.encoding is not None:
        sources = [with_encoding(source, request.encoding) for source in sources]
    scrubber = Scrubber(_rules(request, domain)) if request.scrub else None
    license = strictest(source.license for source in sources)
    return Inputs(request, domain, tuple(sources), tuple(earlier), license, scrubber)


def _rules(request: PrepareRequest, domain: Domain | None) -> Rules:
    return make_rules(
        domain,
        policy=request.scrub_policy,
        find=request.scrub_find,
        otherwise=IDENTIFIERS,
        tagger=request.tagger,
        seed=request.seed,
    )


def check_request(request: PrepareRequest, domain: Domain | None) -> None:
    """Check every option before anything is read.

    Raises:
        ConfigError: lists all problems at once.
    """
    problems = []
    if request.ray_address is not None and request.engine != "ray":
        problems.append("--ray-address is for --engine ray. Add that, or leave out the address")
    if request.split_by_time is not None and request.stratify:
        problems.append("--split-by-time and --stratify exclude each other. Use only one of them")
    for flag, given in (("--map", request.columns), ("--ignore", request.ignored)):
        if given and not request.sources:
            problems.append(f"{flag} needs rows of your own. Pass them with --source")
    known = NAMES | (_prompt_columns(domain) if domain else frozenset())
    for name in sorted(set(request.columns) - known):
        problems.append(f"--map {name}=…: no row format has a column {name!r}. {did_you_mean(name, sorted(known))}")
    tasks = domain.recipe.tasks if domain else {}
    for task in request.tasks:
        if task not in tasks:
            problems.append(f"--task {task}: the domain has no such task. {did_you_mean(task, sorted(tasks))}")
    listed = [source.id for source in (*domain.recipe.sources, *domain.recipe.sample)] if domain else []
    for name in request.include:
        if name not in listed:
            problems.append(f"--include {name}: the domain has no such source. {did_you_mean(name, listed)}")
    if {"label", "labels"} <= request.columns.keys():
        problems.append(
            "--map label=… and --map labels=… exclude each other: a row has one label or several. Give one of them"
        )
    if request.label_separator == "":
        problems.append("--label-separator must not be empty. Give the text between two labels, such as ';'")
    for code in (request.language or "").split(","):
        if code.strip() and not LANGUAGE.fullmatch(code.strip().lower()):
            problems.append(f"--language {code.strip()} is not a language code. Write, for example, en, de or any")
    if request.encoding is not None and not is_encoding(request.encoding):
        problems.append(
            f"--encoding {request.encoding}: there is no such encoding. Write, for example, cp1250 or utf-16"
        )
    if request.canaries:
        problems += _key_problems(request)
    try:
        parse_ratio(request.split_ratio)
        parse_time_rule(request.split_by_time)
    except InputError as error:
        problems.append(str(error))
    check(request, problems)


def _key_problems(request: PrepareRequest) -> list[str]:
    """What is wrong with the file for the key of the canaries, if anything."""
    path = request.key_path
    if request.address is not None and request.canary_key is None:
        return ["--canaries need --canary-key FILE if the corpus goes to a bucket: their key stays on this machine"]
    if Path(os.path.abspath(path)).is_relative_to(os.path.abspath(request.folder)):
        return [f"--canary-key {path} lies in the corpus, which may be shared. Choose a file outside {request.folder}"]
    if path.exists() and not is_key(path):
        return [f"--canary-key {path} is another file, which is never replaced. Choose another name"]
    if path.exists() and not request.overwrite:
        return [f"--canary-key {path} already exists. Choose another file, or replace corpus and key with --overwrite"]
    return []


def _prompt_columns(domain: Domain) -> frozenset[str]:
    """All columns that are used in the prompts of a domain."""
    return frozenset[str]().union(*(load_prompt(domain, task).columns for task in domain.recipe.tasks))
