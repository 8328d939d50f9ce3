"""What an adapter writes is compared with its rows, and no more is written than the comparison needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from finetune.artifacts import Adapter
from finetune.audit import AuditRequest
from finetune.audit.extract import Continuation, Writer, search_copies
from finetune.audit.rows import AuditRows, Row, choose_rows
from finetune.audit.scores import score_rows
from finetune.corpus.open import open_corpus
from finetune.models.chat_template import Rendering
from finetune.models.find import find_base
from finetune.models.load import LoadedModel, load_adapter
from finetune.prepare import PrepareRequest
from finetune.records import Example
from finetune.scoring.supervised import TokenScores

from ..conftest import chat


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


def test_identifier_that_follows_the_prompt_was_not_read(tiny_model: Path, tmp_path: Path) -> None:
    """Even if the answer goes on behind what the adapter may write: only the tokens of the prompt were read."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    parts = ("Whom do I ask? Write to", " anna.berg@example.org", " after maybe neutral yes" * 10)
    prompt, expected, behind = (tuple(tokenizer.encode(part)) for part in parts)
    example = Example("a", chat("Whom do I ask?", "".join(parts)), "qa")
    row = Row(example, Rendering((*prompt, *expected, *behind), ()))
    request = AuditRequest(tmp_path, tmp_path, tmp_path)
    writer = Writer(LoadedModel(None, tokenizer, find_base(str(tiny_model))), request)
    read = writer.read_with_prompts([Continuation(row, prompt, expected, expected, is_base_verbatim=False)])
    assert read == [parts[:2]]
    assert search_copies(AuditRows((row,), (), (example,), ()), [], [], read)[0].from_training == 1


def count(continuations: list[Continuation]) -> int:
    return sum(len(each.written) for each in continuations)
