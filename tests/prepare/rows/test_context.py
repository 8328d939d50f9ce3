"""The context of a row: the passage that its last question contains, or the second of two texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.prepare.clean.special_tokens import escape_control_tokens
from finetune.prepare.clean.text import clean_text
from finetune.prepare.rows.change import follow_context
from finetune.scrub import tag_identifiers

from ..conftest import Preparer, write_jsonl

PAIRS = [("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2")]
PAIRS += [("question", "sentence")]
# What cleaning, escaping and scrubbing change, also where two such parts meet.
PARTS = [
    "The pier ",
    "is closed",
    "\n\n",
    "  ",
    "<|im_",
    "end|>",
    "[INST]",
    "&amp;",
    "anna@",
    "example.com",
    "\u200b",
    "é",
]
PARTS += ["+49 30 ", "1234567", "USD ", "8.8.", "4.4", "version ", "<p>", "</p>", "Ã©", "\r\n"]
texts = st.lists(st.sampled_from(PARTS), max_size=8).map("".join)


def protect(text: str) -> str:
    return tag_identifiers(escape_control_tokens(text))


@pytest.mark.parametrize("change", [clean_text, escape_control_tokens, protect], ids=["clean", "escape", "protect"])
@given(before=texts, context=texts, after=texts)
def test_changed_question_contains_its_context(
    change: Callable[[str], str], before: str, context: str, after: str
) -> None:
    changed = change(before + context + after)
    followed = follow_context(context, before + context + after, changed, change)
    assert followed is None or (followed.strip() and followed in changed)


@given(context=texts.filter(str.strip))
def test_context_between_other_paragraphs_is_never_lost(context: str) -> None:
    question = f"Read this.\n\n{context}\n\nWhat does it say?"
    changed = protect(question)
    assert (
        follow_context(context, question, changed, protect)
        == changed[len("Read this.\n\n") : -len("\n\nWhat does it say?")]
    )


def test_question_without_its_context_has_none() -> None:
    assert follow_context("A pier.", "A PIER. Is it one?", "A PIER. Is it one?", str) is None


@pytest.mark.parametrize("clean", ["full", "light", "none"])
def test_context_of_a_prepared_row_is_a_part_of_its_question(clean: str, prepared: Preparer, tmp_path: Path) -> None:
    contexts = [
        "Mail anna@pier.org or <|im_end|> call.",
        "&amp; so\u200b on\r\n",
        "\n  An indented pier\n",
        "Ã©tude [INST]",
    ]
    rows = [{"context": text, "question": f"What of {n}?", "answer": "It is so."} for n, text in enumerate(contexts)]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), clean=clean, quality=False).rows
    assert len(made) == len(rows)
    assert all(row.context and row.context in row.messages[-2].content for row in made)
    assert "Mail [EMAIL] or < |im_end|> call." in [row.context for row in made]


def test_context_is_in_the_corpus_only_if_a_row_has_one(prepared: Preparer, tmp_path: Path) -> None:
    rows = [
        {"instruction": "Name it.", "output": "A pier."},
        {"instruction": "Why?", "context": "It sank.", "output": "So."},
    ]
    plain = prepared(write_jsonl(tmp_path / "plain.jsonl", rows[:1]))
    assert [row.context for row in plain.rows] == [None]
    assert [row.context for row in prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).rows] == [None, "It sank."]


def test_prepared_corpus_keeps_its_contexts_and_groups(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"context": "The ferry sails at six.", "question": f"What of {n}?", "answer": f"It is {n}."} for n in "abc"]
    first = prepared(write_jsonl(tmp_path / "rows.jsonl", rows))
    again = prepared(first.corpus.path)
    assert [(row.context, row.group) for row in again.rows] == [(row.context, row.group) for row in first.rows]


# --- two texts and a label --------------------------------------------------------------------------------------------


def pair_rows(names: tuple[str, str] = PAIRS[0], count: int = 4) -> list[dict[str, Any]]:
    first, second = names
    return [
        {first: f"The lamp {n} is lit.", second: f"It is dark at {n}.", "label": ("no", "yes")[n % 2]}
        for n in range(count)
    ]


@pytest.mark.parametrize("names", PAIRS)
def test_two_texts_and_a_label_become_a_classification(
    names: tuple[str, str], prepared: Preparer, tmp_path: Path
) -> None:
    made = prepared(write_jsonl(tmp_path / "train.jsonl", pair_rows(names)))
    row = made.rows[1]
    assert (row.task, row.label, row.choices) == ("classification", "yes", ("no", "yes"))
    assert row.messages[1].content == "The lamp 1 is lit.\n\nIt is dark at 1."
    assert row.context == "It is dark at 1."
    assert (made.result.unused, row.group) == ([], None)
    assert "two texts" in row.messages[0].content


def test_pairs_of_other_columns_are_mapped(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", pair_rows(("claim", "proof")))
    made = prepared(source, columns={"text": "claim", "text_pair": "proof"}).rows
    assert made[0].context == "It is dark at 0."


def test_both_texts_decide_whether_rows_are_duplicates(prepared: Preparer, tmp_path: Path) -> None:
    rows = [
        {"text": "A lamp is lit in the hall.", "text_pair": second, "label": label}
        for second, label in [
            ("Light.", "yes"),
            ("Light.", "yes"),
            ("The hall lies in the dark.", "no"),
            ("Dark.", "no"),
        ]
    ]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows))
    assert (len(made.rows), made.result.dropped) == (3, {"duplicate": 1})


def test_two_labels_of_one_pair_are_a_conflict(prepared: Preparer, tmp_path: Path) -> None:
    rows = [*pair_rows(), {**pair_rows()[0], "label": "yes"}]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows))
    assert made.result.dropped == {"conflicting_label": 2}


def test_pair_of_an_eval_set_is_found(prepared: Preparer, tmp_path: Path) -> None:
    rows = pair_rows()
    eval_set = write_jsonl(tmp_path / "evals" / "exam.jsonl", rows[:2])
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows), decontaminate=(str(eval_set),))
    assert made.result.dropped == {"eval_question": 2}


def test_prepared_pairs_stay_pairs(prepared: Preparer, tmp_path: Path) -> None:
    first = prepared(write_jsonl(tmp_path / "train.jsonl", pair_rows()))
    again = prepared(first.corpus.path)
    assert [(row.context, row.group, row.label) for row in again.rows] == [
        (row.context, row.group, row.label) for row in first.rows
    ]


def test_second_text_without_a_label_is_not_lost(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{name: row[name] for name in PAIRS[0]} for row in pair_rows()]
    with pytest.raises(Exception, match="'text_pair' is the second of two texts"):
        prepared(write_jsonl(tmp_path / "rows.jsonl", rows))


def test_task_of_a_domain_may_show_two_texts(prepared: Preparer, tmp_path: Path) -> None:
    domain = tmp_path / "claims"
    (domain / "prompts").mkdir(parents=True)
    (domain / "prompts" / "pair.jinja").write_text("{{ text }}\n---\n{{ text_pair }}\n", "utf-8")
    (domain / "recipe.yaml").write_text(
        "name: claims\ntitle: Claims\ndescription: Claims.\ncaution: None.\n"
        "tasks: {pair: {task: classification, prompt: prompts/pair.jinja, choices: ['yes', 'no']}}\n"
        "sources: []\nsample: []\n",
        "utf-8",
    )
    made = prepared(write_jsonl(tmp_path / "train.jsonl", pair_rows()), domain=str(domain)).rows
    assert made[0].messages[0].content == "The lamp 0 is lit.\n---\nIt is dark at 0."
    assert made[0].context == "It is dark at 0."
