"""The questions with fixed answers that a corpus asks, as an adapter's manifest keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.artifacts import Adapter, Corpus
from finetune.corpus.store import read_split
from finetune.records import Example, Message
from finetune.scoring.label_tasks import KEY, describe_label_tasks, label_tasks_of, read_label_tasks

ROW = Example(
    "a/1",
    (Message("system", "Urgent?"), Message("user", "It burns."), Message("assistant", "yes")),
    "classification",
    label="yes",
    choices=("no", "yes"),
    source="a",
)


def test_a_trained_adapter_keeps_the_question_of_its_corpus(tiny_adapter: Path, tiny_corpus: Path) -> None:
    (task,) = label_tasks_of(Adapter.open(tiny_adapter).manifest)
    assert (task.name, task.labels, task.multi_label) == ("news", ("bearish", "bullish", "neutral"), False)
    row = next(row for row in read_split(Corpus.open(tiny_corpus), "train") if row.choices)
    assert task.ask(row.prompt[-1].content) == list(row.prompt)


def test_a_domain_keeps_its_name_and_template(tmp_path: Path) -> None:
    from finetune.prepare import PrepareRequest, prepare

    folder = tmp_path / "tickets"
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "urgency.jinja").write_text("Ticket: {{ text }}\nUrgent?")
    (folder / "rows.jsonl").write_text('{"text": "It burns.", "label": "yes"}\n{"text": "Thanks.", "label": "no"}\n')
    source = "  - {id: mails, uri: rows.jsonl, license: mit, task: urgency}\n"
    (folder / "recipe.yaml").write_text(
        "name: tickets\ntitle: Tickets\ndescription: Tickets.\ncaution: None.\n"
        "tasks:\n  urgency: {task: classification, prompt: prompts/urgency.jinja, system: 'Say yes or no.', "
        "choices: ['yes', 'no']}\n"
        f"sources:\n{source}sample:\n{source}"
    )
    prepare(PrepareRequest(tmp_path / "corpus", domain=str(folder), split_ratio="1/0/0", quality=False))
    corpus = Corpus.open(tmp_path / "corpus")
    rows = read_split(corpus, "train")
    (task,) = read_label_tasks(rows, corpus.manifest["sources"])
    assert (task.name, task.labels, task.asks_about_text) == ("urgency", ("yes", "no"), True)
    assert task.ask("It burns.") in [list(row.prompt) for row in rows]


@pytest.mark.parametrize(
    "change",
    [
        lambda row: replace(row, choices=("maybe", "no", "yes")),
        lambda row: replace(row, messages=(Message("system", "Urgent, Ms Miller?"), *row.messages[1:])),
        lambda row: replace(row, choices=(), label=None),
    ],
)
def test_what_differs_from_row_to_row_is_not_kept(change: Callable[[Example], Example]) -> None:
    for rows in ([ROW, change(ROW)], [change(ROW), ROW]):
        assert read_label_tasks(rows, []) == []
        assert len(read_label_tasks([*rows, replace(ROW, source="b")], [])) == 1


def test_sources_with_one_question_are_one_task() -> None:
    rows = [ROW, replace(ROW, source="b"), replace(ROW, source="c", labels=("yes",), label=None)]
    one, several = read_label_tasks(rows, [{"id": "a", "task": "urgency"}, {"id": "b"}])
    assert (one.name, one.source, one.multi_label, several.name, several.multi_label) == (
        "urgency", "a", False, "c", True,
    )  # fmt: skip
    assert label_tasks_of(describe_label_tasks([one, several, one])) == (one, several)


def test_a_manifest_without_them_has_none(tiny_adapter: Path) -> None:
    manifest = {name: value for name, value in Adapter.open(tiny_adapter).manifest.items() if name != KEY}
    assert label_tasks_of(manifest) == ()
