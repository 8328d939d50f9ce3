"""The tasks of an evaluation by name: those of the corpus, sources of the domain's recipe, and files of rows."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finetune.artifacts import Adapter, Corpus
from finetune.errors import InputError, UnknownNameError
from finetune.evaluate.known_labels import ask_as_in_training, known_tasks
from finetune.evaluate.request import EvalRequest
from finetune.models.heads import Head
from finetune.prepare import PrepareRequest, PrepareResult, prepare
from finetune.recipe import Domain, SourceRecipe, load_domain
from finetune.records import Split
from finetune.scoring.tasks import EvalTask, tasks_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalSet:
    """Rows outside the corpus: their name, where they are, and the recipe of their source, if one describes them."""

    name: str
    place: str
    recipe: SourceRecipe | None = None


@dataclass(frozen=True)
class EvalSets:
    """The tasks, and where those outside the corpus come from: address, revision and licence, by name."""

    tasks: list[EvalTask]
    origins: dict[str, dict[str, str | None]] = field(default_factory=dict)


def open_tasks(request: EvalRequest, adapter: Adapter, corpus: Corpus | None, head: Head | None) -> EvalSets:
    """The requested tasks: all of the corpus, or those that `request.tasks` names.

    A name is a task of the corpus, else a source of the domain, else a file: its path, or NAME=PATH.

    Raises:
        UnknownNameError: there is no such task.
        InputError: rows cannot be read, or have labels outside the choices.
        OfflineError, HubError: a data set cannot be downloaded.
    """
    kind = head.kind if head else None
    if not request.tasks:
        if corpus is None:
            raise InputError(
                "There is nothing to evaluate on. Pass --corpus, or --task with a source or a file of rows"
            )
        return EvalSets(tasks_of(corpus, request.split, limit=request.limit, head=kind))
    domain = _find_domain(request, adapter, corpus)
    own, problem = _own_tasks(corpus, request, head)
    known = known_tasks(own, adapter, domain, head)
    sets = EvalSets([])
    for name in request.tasks:
        mine = [task for task in own if task.name == name]
        if mine:
            sets.tasks.extend(mine)
            continue
        try:
            wanted = _find_set(name, domain, own)
        except UnknownNameError as error:
            raise problem or error from None
        tasks, result = _read_set(wanted, request, domain, corpus, head)
        sets.tasks.extend(tasks if wanted.recipe else [ask_as_in_training(task, known) for task in tasks])
        (source,) = (source for source in result.sources if wanted.recipe is None or source.id == wanted.name)
        sets.origins[wanted.name] = {"uri": source.uri, "revision": source.revision, "license": source.license}
    _check_names([task.name for task in sets.tasks])
    return replace(sets, tasks=[replace(task, examples=task.examples[: request.limit]) for task in sets.tasks])


def _own_tasks(
    corpus: Corpus | None, request: EvalRequest, head: Head | None
) -> tuple[list[EvalTask], InputError | None]:
    """The tasks of the corpus, or why it has none: which matters only if one of them is asked for."""
    if corpus is None:
        return [], None
    try:
        return tasks_of(corpus, request.split, head=head.kind if head else None), None
    except InputError as error:
        return [], error


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} tasks are called {name}. Give one another name: --task NAME=FILE")


def _find_domain(request: EvalRequest, adapter: Adapter, corpus: Corpus | None) -> Domain | None:
    """The domain that the user named, or that of the corpus, or that of the adapter's training."""
    parent = adapter.manifest.get("parents", {}).get("corpus", {})
    for name in (request.domain, corpus and corpus.manifest.get("domain"), parent.get("domain")):
        try:
            if name:
                return load_domain(name)
        except UnknownNameError:
            continue  # a workspace or a corpus without a recipe on this machine
    return None


def _find_set(name: str, domain: Domain | None, own: Sequence[EvalTask]) -> EvalSet:
    sources = {source.id: source for source in (*domain.recipe.sample, *domain.recipe.sources)} if domain else {}
    if name in sources:
        return EvalSet(name, sources[name].uri, sources[name])
    title, separator, path = name.partition("=")
    if separator or Path(name).suffix or "/" in name:
        place = path if separator else name
        return EvalSet(title if separator else Path(place).name.partition(".")[0], place)
    where = f"the corpus or of the domain {domain.name}" if domain else "the corpus"
    hint = "A file of rows is a task too: --task FILE or --task NAME=FILE"
    raise UnknownNameError(f"task of {where} called", name, {*(task.name for task in own), *sources}, hint)


def _read_set(
    wanted: EvalSet, request: EvalRequest, domain: Domain | None, corpus: Corpus | None, head: Head | None
) -> tuple[list[EvalTask], PrepareResult]:
    """Read rows as `prepare` does, but change and drop none of them."""
    split: Split = request.split if wanted.recipe else "test"
    settings: dict[str, Any] = {"sample": True} if _is_sample(wanted, domain) else {"sources": (wanted.place,)}
    divided = corpus.config if corpus is not None and wanted.recipe else {}
    settings |= {name: divided[name] for name in ("seed", "split_ratio") if name in divided}
    with tempfile.TemporaryDirectory() as folder:
        preparation = PrepareRequest(
            Path(folder) / "corpus",
            domain=str(domain.folder) if domain else None,
            only=split,
            clean="none",
            quality=False,
            language="any",
            dedup=False,
            recipe_evals=False,
            scrub=False,
            accept_noncommercial=request.accept_noncommercial,
            **settings,
        )
        result = _prepare(preparation, wanted)
        rows = Corpus.open(result.corpus)
        named = [wanted.name] if wanted.recipe else []
        tasks = tasks_of(rows, split, named, head=head.kind if head else None, place=wanted.place)
    if dropped := sum(result.dropped.values()):
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(result.dropped.items()))
        log.warning("%d rows of %s are not evaluated: %s.", dropped, wanted.name, reasons)
    renamed = [replace(task, name=wanted.name) for task in tasks] if len(tasks) == 1 else tasks
    return renamed, result


def _prepare(preparation: PrepareRequest, wanted: EvalSet) -> PrepareResult:
    try:
        return prepare(preparation)
    except InputError as error:
        if wanted.recipe is not None or not any(flag in str(error) for flag in ("--map", "--on-error", "--ignore")):
            raise
        raise InputError(
            f"{error}. These are options of slmtune prepare: make a corpus of {wanted.place} with it, and evaluate on that "
            "with --corpus"
        ) from None


def _is_sample(wanted: EvalSet, domain: Domain | None) -> bool:
    return domain is not None and wanted.recipe is not None and wanted.recipe not in domain.recipe.sources
