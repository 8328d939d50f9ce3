"""Surveys every file: the shape of its rows and, for labelled texts, the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice

from finetune.errors import ConfigError, InputError, RecordError, Unusable
from finetune.prepare.drops import Drops
from finetune.prepare.formats.files import BadRow, DataFile, Row
from finetune.prepare.formats.readers import read_rows
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.answers import count_from, list_labels, write_labels
from finetune.prepare.rows.choose import MULTIPLE_CHOICE, choose_shape, named
from finetune.prepare.rows.cleaning import PROSE, choose_degrees, survey_texts
from finetune.prepare.rows.columns import Values, has_value, plain_columns, required_text
from finetune.prepare.rows.draft import Draft
from finetune.prepare.rows.label_columns import LabelColumns, check_indicators, find_labels
from finetune.prepare.rows.labels import add_choices, read_labels
from finetune.prepare.rows.part import SPLIT, Part, kind_of
from finetune.prepare.rows.preference import RATABLE, RATED, find_ratings
from finetune.prepare.rows.prompts import Prompt, load_prompt
from finetune.prepare.rows.shapes import SECOND, Shape, build_choice, build_text, domain_shape, with_aliases
from finetune.prepare.sources.local import is_document
from finetune.prepare.sources.source import Source
from finetune.prepare.splits.timestamps import parse_time_rule
from finetune.recipe import Domain
from finetune.records import SPLIT_WORDS, Message

LOOKED_AT = 1000  # rows that decide the shape of a file; the others must fit it
# Columns that the prompt of a domain must not ignore.
INPUTS = frozenset({"text", SECOND, "question", "context", "choices", "system", "history"})


def survey(sources: Sequence[Source], request: PrepareRequest, domain: Domain | None, drops: Drops) -> list[Part]:
    """Read the first rows of every file, and all labels if the labels are the choices.

    Raises:
        InputError: a file cannot be used, and `--on-error` is `fail`.
    """
    parts = []
    for source in sources:
        for file in source.files:
            try:
                parts.append(_look(source, file, request, domain, drops))
            except InputError as error:
                reason = "unknown_columns" if isinstance(error, RecordError) else "unreadable"
                drops.refuse_file(source, file, reason, error)
    _refuse_mixture([part for part in parts if not part.source.earlier])
    return list(add_choices(parts, request, drops))


def _refuse_mixture(parts: Sequence[Part]) -> None:
    preference = [part.file.shown for part in parts if part.is_preference]
    others = [part.file.shown for part in parts if not part.is_preference]
    if preference and others:
        raise InputError(
            f"The sources have rows for preference tuning ({preference[0]}) and other rows ({others[0]}), which no training "
            "takes together. Prepare a corpus of each. To learn the preferred answers like other answers: --ignore rejected"
        )


def _look(source: Source, file: DataFile, request: PrepareRequest, domain: Domain | None, drops: Drops) -> Part:
    if is_document(file):
        return Part(source, file, None, cleaning={"text": request.clean})
    first = list(islice(read_rows(file), LOOKED_AT))
    if not first:
        raise InputError(f"{file.shown} has no rows. Use a file with at least one")
    broken = next((row for row in first if isinstance(row, BadRow)), None)
    if broken is not None and drops.on_error == "fail":
        raise RecordError(f"{file.shown}:{broken.line}", broken.problem)
    rows = [row for row in first if isinstance(row, Row)]
    rule = parse_time_rule(request.split_by_time)
    ids = _official_ids(source, domain)
    given = source.recipe.map if source.recipe else request.columns
    labels = find_labels(rows, given, _separator(source, request), request.ignored)
    if source.recipe and labels.is_assumed:
        labels = LabelColumns(given)
    shape = _shape_of(source, file, rows, request, domain, labels)
    mapping = dict(given if labels.is_assumed and "label" not in shape.needs else labels.mapping)
    if RATED in shape.needs and RATED not in mapping:
        mapping[RATED] = _ratings(rows, request) or RATED
    part = Part(
        source,
        file,
        shape,
        mapping=mapping,
        ignored=with_aliases(request.ignored),
        extra=frozenset({rule.column.strip().lower()} if rule else ()) | ({"id"} if ids else set()),
        test_ids=ids,
        indicators=labels.indicators,
        separator=_separator(source, request) if {"label", "choices"} & {*shape.needs} == {"label"} else None,
    )
    return replace(_know_values(part, rows, request), has_splits=_has_splits(part, rows))


def _know_values(part: Part, rows: Sequence[Row], request: PrepareRequest) -> Part:
    """The part with what the values of its first rows tell: labels, choices, and how to clean each column."""
    assert part.shape is not None
    columns = []
    for row in rows:
        with suppress(Unusable):  # refused when its turn comes
            columns.append(part.columns(row))
    degrees = choose_degrees(part.shape.columns, request.clean)
    if request.clean == "full":
        degrees |= survey_texts(columns, {*degrees} - PROSE)
    shape = part.shape
    if shape.name == MULTIPLE_CHOICE:
        shape = replace(shape, build=partial(build_choice, count_from(columns), part.ignored))
    kinds = Counter(kind_of(each.get("label")) for each in columns if "label" in shape.needs and not part.source.recipe)
    del kinds[None]
    return replace(
        part,
        shape=shape,
        label_kind=kinds.most_common(1)[0][0] if kinds else None,
        cleaning=degrees,
        is_preference=_are_preferences(part, columns),
    )


def _are_preferences(part: Part, rows: Sequence[Values]) -> bool:
    """Whether the first usable row is for preference tuning; a file does not mix such rows with others."""
    assert part.shape is not None
    if "rejected" in part.ignored or part.shape.columns.isdisjoint({"rejected", RATED}):
        return False
    for row in rows:
        with suppress(Unusable):
            return part.shape.build(row).task == "preference"
    return False


def _has_splits(part: Part, rows: Sequence[Row]) -> bool:
    """Whether the column `split` names the split of each row; that of a file or a recipe comes first."""
    if part.file.split is not None or part.source.recipe or part.source.earlier:
        return False
    if SPLIT in part.mapping:
        return True
    if SPLIT in part.reads | part.ignored:
        return False
    values = [value for row in rows if has_value(value := plain_columns(row.values).get(SPLIT))]
    return bool(values) and all(str(value).strip().lower() in SPLIT_WORDS for value in values)


def _shape_of(
    source: Source,
    file: DataFile,
    rows: Sequence[Row],
    request: PrepareRequest,
    domain: Domain | None,
    labels: LabelColumns,
) -> Shape:
    if source.recipe is not None:
        assert domain is not None
        return _task_shape(domain, source.recipe.task, source.recipe.labels, source.recipe.answer_template)
    if not rows:
        return Shape("text", ("text",), build_text)  # all rows will be refused, so any shape will do
    counts = Counter(name for row in rows for name in plain_columns(row.values))
    names = [name for name, number in counts.items() if 2 * number >= len(rows)] or list(counts)
    ignored = with_aliases(request.ignored)
    names = [name for name in names if name not in ignored]
    names += [name for name in (*labels.mapping, *labels.asked) if name not in names]
    names += [RATED] if RATED not in names and not RATABLE.isdisjoint(names) and _ratings(rows, request) else []
    part = Part(
        source, file, None, mapping=labels.mapping, separator=request.label_separator, indicators=labels.indicators
    )
    if domain is not None and (shape := _fitting_task(domain, names, part, request)) is not None:
        return shape
    try:
        shape = choose_shape(names, labels.asked, ignored)
        if shape.name == "text":
            check_indicators(rows, ignored)
        return shape
    except Unusable as error:
        raise RecordError(f"{file.shown}:{rows[0].line}", str(error)) from None


def _separator(source: Source, request: PrepareRequest) -> str | None:
    return source.recipe.label_separator if source.recipe else request.label_separator


def _ratings(rows: Sequence[Row], request: PrepareRequest) -> str | None:
    """The column that rates the answers, if there is one."""
    return find_ratings([plain_columns(row.values) for row in rows], with_aliases(request.ignored))


def _fitting_task(domain: Domain, names: Sequence[str], part: Part, request: PrepareRequest) -> Shape | None:
    """The domain's task whose prompt reads these columns and, for classification, whose choices these labels are."""
    for task, recipe in domain.recipe.tasks.items():
        shape = _task_shape(domain, task, {})
        if not set(shape.needs) <= named(names) or INPUTS & named(names) - set(shape.needs):
            continue
        if not recipe.choices:
            return shape
        choices = {choice.casefold() for choice in recipe.choices}
        labelled = replace(part, shape=replace(shape, build=_build_label))
        labels = read_labels(labelled, replace(request, quality=False), len(choices))
        if request.instruction is None and labels.folded <= choices and recipe.multi_label >= labels.several:
            return shape
    return None


def _build_label(columns: Values) -> Draft:
    """A label without its text, which the prompt of a domain may build from any columns."""
    names = list_labels(columns.get("label"))
    if names is None or len(names) == 1:
        return Draft((Message("assistant", names[0] if names else required_text(columns, "label")),), "classification")
    return Draft((Message("assistant", write_labels(names, ())),), "classification", labels=tuple(names))


def _task_shape(domain: Domain, task: str, labels: Mapping[str, str], template: str | None = None) -> Shape:
    recipe = domain.recipe.tasks[task]
    answer = Prompt("answer_template", template) if template else None
    return domain_shape(f"{domain.name} {task}", recipe, load_prompt(domain, task), labels, answer)


def _official_ids(source: Source, domain: Domain | None) -> frozenset[str]:
    """The ids of a test set inside another split."""
    if source.recipe is None or source.recipe.test_ids is None or domain is None:
        return frozenset()
    file = domain.folder / source.recipe.test_ids
    try:
        return frozenset(file.read_text("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(str(domain.folder / "recipe.yaml"), [f"{file.name} cannot be read ({reason})"]) from None
