"""Loads the eval sets whose items a corpus must not contain: hashed ones of the recipe, and those of --decontaminate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from finetune.errors import InputError, Unusable
from finetune.prepare.decontaminate.build import build_index
from finetune.prepare.decontaminate.eval_index import EvalIndex, EvalItem, merge_indexes
from finetune.prepare.decontaminate.verdict import open_evals
from finetune.prepare.drops import Drops, row_id
from finetune.prepare.formats.files import Row
from finetune.prepare.formats.readers import read_rows
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.cleaning import clean_columns
from finetune.prepare.rows.columns import optional_text
from finetune.prepare.rows.part import Part
from finetune.prepare.rows.survey import survey
from finetune.prepare.sources.source import Source, open_source
from finetune.recipe import Domain


def load_evals(request: PrepareRequest, domain: Domain | None, drops: Drops) -> EvalIndex | None:
    """One index of all eval sets, None if there are none; `drops` counts their files that are not read.

    Raises:
        InputError: an eval set is missing or cannot be read; none is skipped silently.
    """
    bundled = open_evals(domain) if domain is not None and request.recipe_evals else None
    indexes = [bundled] if bundled is not None else []
    for uri in request.decontaminate:
        source = open_source(uri, request, domain)
        drops.note_unread(replace(source, id=f"eval set {source.id}"))
        indexes.append(build_index(source.id, eval_items(source, request, domain)))
    return merge_indexes(indexes) if indexes else None


def eval_items(source: Source, request: PrepareRequest, domain: Domain | None) -> Iterator[EvalItem]:
    """Questions and answers from the rows of an eval set; rows that have neither are ignored.

    Raises:
        InputError: it has no usable rows.
    """
    any_found = False
    for part in survey([source], request, domain, Drops("fail")):
        if part.shape is None:
            raise InputError(
                f"{part.file.shown} is a document. An eval set must be a file of rows, such as JSON Lines or CSV"
            )
        for row in read_rows(part.file):
            item = _item(part, row) if isinstance(row, Row) else None
            if item is not None:
                any_found = True
                yield item
    if not any_found:
        raise InputError(f"The eval set {source.uri} has no usable rows. Check its columns")


def _item(part: Part, row: Row) -> EvalItem | None:
    assert part.shape is not None
    try:
        columns = clean_columns(part.columns(row), dict.fromkeys(part.cleaning, "full"), set())
        draft = part.shape.build(columns)
        context = optional_text(columns, "context") if "context" in columns else ""
        asked = optional_text(columns, "question") if "question" in columns else ""
    except Unusable:
        return None
    name, answer = row_id(part.source, part.file, row.line), draft.messages[-1].content
    if asked and (context or "choices" in part.shape.needs):
        return EvalItem(name, asked, answer, context)
    question = "\n".join(turn.content for turn in draft.messages[:-1] if turn.role != "system")
    return EvalItem(name, question or answer, answer if question else "")
