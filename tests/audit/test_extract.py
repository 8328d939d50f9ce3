"""What an adapter writes is compared with its rows, and no more is written than the comparison needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.artifacts import Adapter
from finetune.audit import AuditRequest
from finetune.audit.extract import Continuation, Writer
from finetune.audit.rows import AuditRows, choose_rows
from finetune.audit.scores import score_rows
from finetune.corpus.open import open_corpus
from finetune.models.load import LoadedModel, load_adapter
from finetune.prepare import PrepareRequest
from finetune.scoring.supervised import TokenScores


@pytest.fixture
def loaded(overfitted: Path) -> LoadedModel:
    return load_adapter(Adapter.open(overfitted))


@pytest.fixture
def asked(audited: PrepareRequest, overfitted: Path) -> AuditRequest:
    return AuditRequest(overfitted, audited.folder, audited.folder, limit=40, extractions=40, max_new_tokens=6)


@pytest.fixture
def rows(asked: AuditRequest, loaded: LoadedModel) -> AuditRows:
    return choose_rows(asked, open_corpus(asked.corpus), loaded.tokenizer, 1024)


def scores_of(loaded: LoadedModel, rows: AuditRows) -> list[TokenScores]:
    return score_rows(loaded, [*rows.members, *rows.controls], 16, lambda count: None)


def test_scores_tell_what_would_be_written_and_controls_end_early(
    loaded: LoadedModel, asked: AuditRequest, rows: AuditRows
) -> None:
    """Where each token of an answer is the first choice, the greedy continuation is the answer."""
    both, scored = (*rows.members, *rows.controls), [(one, one) for one in scores_of(loaded, rows)]
    writer = Writer(loaded, asked)
    whole, brief = (writer.continue_answers(both, scored, whole=each) for each in (True, False))
    assert {each.is_verbatim for each in whole} == {True, False}
    assert [each.is_verbatim for each in whole] == [each.is_base_verbatim for each in whole]
    assert [(each.is_verbatim, each.is_near) for each in brief] == [(each.is_verbatim, each.is_near) for each in whole]
    assert all(one.written == other.written[: len(one.written)] for one, other in zip(brief, whole, strict=True))
    assert count(brief) < count(whole)
    assert all(each.row.rendering.ids[len(each.prompt) :][: len(each.expected)] == each.expected for each in whole)


def count(continuations: list[Continuation]) -> int:
    return sum(len(each.written) for each in continuations)
