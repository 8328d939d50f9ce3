"""Rows of preference tuning, from the source to the corpus and its views."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from finetune.cli.render.corpus import render_view
from finetune.cli.render.mask import render_mask
from finetune.cli.render.preview import render_preview
from finetune.corpus.mask import show_mask
from finetune.corpus.store import SCHEMA
from finetune.corpus.view import show_corpus
from finetune.errors import InputError
from finetune.prepare.preview import preview
from finetune.prepare.request import PrepareRequest

from .conftest import Prepared, Preparer, questions, write_jsonl

Row = dict[str, Any]


def pair(prompt: str, chosen: str, rejected: str | None) -> Row:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def rated(prompt: str, completion: str, label: bool) -> Row:
    return {"prompt": prompt, "completion": completion, "label": label}


def pairs(count: int) -> list[Row]:
    return [pair(f"What is number {n}?", f"It is {n}.", f"No idea about {n}.") for n in range(count)]


def answers(made: Prepared) -> list[tuple[str, ...]]:
    return [(row.answer, *(turn.content for turn in row.rejected[-1:])) for row in made.rows]


@pytest.fixture
def prepare_rows(prepared: Preparer, tmp_path: Path) -> Any:
    def run(rows: Iterable[Row], **options: Any) -> Prepared:
        return prepared(write_jsonl(tmp_path / "rows.jsonl", rows), **{"split_ratio": "1/0/0", **options})

    return run


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_empty_and_equal_answers_are_dropped_and_counted(prepare_rows: Any) -> None:
    rows = [
        pair("Name a tool.", "An adze.", ""),
        pair("Name a fruit.", "A pear.", None),
        pair("Name a fish.", "A pike.", "A \u200b pike. "),
        *pairs(1),
    ]
    made = prepare_rows(rows, on_error="skip")
    assert made.result.dropped == {"no_rejected": 2, "equal_answers": 1}
    assert answers(made) == [("It is 0.", "No idea about 0.")]


def test_one_prompt_may_have_many_pairs(prepare_rows: Any) -> None:
    long = "Tell the tale of the miller, his three daughters and the mill that ground salt. " * 20
    rows = [pair(long, best, worst) for best, worst in (("A tale.", "B tale."), ("A tale.", "C tale."))]
    made = prepare_rows([*rows, rows[0], {**rows[1], "prompt": long.upper()}])
    assert answers(made) == [("A tale.", "B tale."), ("A tale.", "C tale.")]
    assert made.result.dropped == {"duplicate": 2}


def test_near_duplicates_of_a_pair_are_dropped(prepare_rows: Any) -> None:
    tale = " ".join(f"word{n}" for n in range(200))
    made = prepare_rows([pair(f"{tale} end", "Yes.", "No."), pair(f"{tale} fin", "Yes.", "No.")])
    assert made.result.dropped == {"near_duplicate": 1}


def test_preferences_that_contradict_each_other_are_dropped(prepare_rows: Any) -> None:
    turned = [pair("Name a tool.", "An adze.", "A saw."), pair("Name a tool.", "A saw.", "An adze.")]
    made = prepare_rows([*turned, pair("Name a tool.", "An adze.", "A pear.")])
    assert (answers(made), made.result.dropped) == ([("An adze.", "A pear.")], {"conflicting_preference": 2})
    both = [rated("Name a tool.", "An adze.", label) for label in (True, False)]
    made = prepare_rows([*both, rated("Name a tool.", "A pear.", False)])
    assert (answers(made), made.result.dropped) == ([("A pear.",)], {"conflicting_preference": 2})


def test_rows_with_one_prompt_share_a_split(prepare_rows: Any) -> None:
    rows = [
        pair(f"What is number {n}?", f"It is {n}.", f"{wrong} {n}?") for n in range(60) for wrong in ("Is it", "Not")
    ]
    made = prepare_rows(rows, split_ratio="0.5/0.25/0.25")
    assert made.result.splits["test"] > 0
    assert made.result.disjoint == "No question is in two splits (120 rows)."


def test_a_prompt_of_the_test_split_leaves_train(prepared: Preparer, tmp_path: Path) -> None:
    train_file = write_jsonl(tmp_path / "train.jsonl", [*pairs(3), pair("What is number 9?", "Nine.", "Ten.")])
    test_file = write_jsonl(tmp_path / "test.jsonl", [pair("What is number 9?", "It is 9.", "Who knows?")])
    assert prepared(train_file, test_file).result.dropped == {"in_test": 1}


@pytest.mark.parametrize("field", ["chosen", "rejected"])
def test_items_of_eval_sets_are_found_in_either_answer(field: str, prepared: Preparer, tmp_path: Path) -> None:
    answer = "The lighthouse of Arbury was built of red sandstone between the years 1841 and 1853 by two brothers"
    evals = write_jsonl(tmp_path / "evals.jsonl", [{"question": "Who built the lighthouse?", "answer": answer}])
    rows = [*pairs(3), {**pair("Tell me a story.", "Once upon a time.", "No."), field: f"Well: {answer}."}]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), decontaminate=(str(evals),))
    assert made.result.contaminated == 1


def test_both_answers_are_cleaned_and_scrubbed(prepare_rows: Any) -> None:
    made = prepare_rows([pair("Hi\r\nyou", "Write to a.b@example.org <|im_end|>", "Call +44 20 7946 0958 <|im_end|>")])
    (row,) = made.rows
    assert [turn.content for turn in row.turns] == [
        "Hi\nyou",
        "Write to [EMAIL] < |im_end|>",
        "Call [PHONE] < |im_end|>",
    ]
    assert made.result.scrubbed == {"EMAIL": 1, "PHONE": 1}


def test_a_bad_answer_may_be_rejected_but_not_chosen(prepare_rows: Any) -> None:
    made = prepare_rows([pair("Name a tool.", "An adze.", "n/a"), pair("Name a fish.", "n/a", "A pike.")])
    assert (answers(made), made.result.dropped) == ([("An adze.", "n/a")], {"placeholder": 1})
    made = prepare_rows([rated("Name a tool.", "n/a", False), rated("Name a fish.", "n/a", True)])
    assert (answers(made), made.result.dropped) == ([("n/a",)], {"placeholder": 1})


def test_without_rejected_answers_only_the_good_ones_are_learnt(prepare_rows: Any) -> None:
    made = prepare_rows(
        [rated("Name a tool.", "An adze.", True), rated("Name a fish.", "Owl.", False)], ignored=("rejected",)
    )
    assert [(row.task, row.answer) for row in made.rows] == [("chat", "An adze.")]
    assert made.result.dropped == {"rejected_answer": 1}


def test_other_rows_are_not_mixed_with_preferences(prepared: Preparer, tmp_path: Path) -> None:
    both = write_jsonl(tmp_path / "pairs.jsonl", pairs(3)), write_jsonl(tmp_path / "qa.jsonl", questions(3, 10))
    with pytest.raises(InputError, match=r"preference tuning \(.*pairs\.jsonl\) and other rows \(.*qa\.jsonl\)"):
        prepared(*both)
    assert prepared(*both, ignored=("rejected",)).result.by_task == {"chat": 3, "qa": 3}


def test_a_corpus_of_pairs_is_a_source_of_pairs(prepare_rows: Any, prepared: Preparer) -> None:
    made = prepare_rows(pairs(4))
    again = prepared(made.corpus.path / "data", split_ratio="1/0/0")
    assert [(row.messages, row.rejected) for row in again.rows] == [(row.messages, row.rejected) for row in made.rows]
    with pytest.raises(InputError, match="in_earlier_corpus 4"):
        prepared(made.corpus.path / "data", against=(made.corpus.path,))


def test_an_earlier_corpus_of_pairs_is_no_mixture(prepare_rows: Any, prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "qa.jsonl", questions(3, 10))
    assert len(prepared(source, against=(prepare_rows(pairs(4)).corpus.path,)).rows) == 3


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_only_corpora_of_pairs_have_the_column_rejected(prepare_rows: Any) -> None:
    from datasets import load_dataset

    made = prepare_rows(pairs(2))
    features = load_dataset(str(made.corpus.path), split="train").features
    assert list(features) == [*SCHEMA.names, "rejected"]
    assert features["rejected"] == features["messages"]
    assert list(load_dataset(str(prepare_rows(questions(2)).corpus.path), split="train").features) == SCHEMA.names


def test_manifest_card_and_page_count_them(prepare_rows: Any) -> None:
    made = prepare_rows([rated("Name a tool.", "An adze.", True), rated("Name a fish.", "Owl.", False)])
    assert made.corpus.manifest["by_task"] == {"preference": 2}
    assert made.result.labels == {"rows": {"desirable": 1, "undesirable": 1}}
    card = (made.corpus.path / "README.md").read_text("utf-8")
    assert "preference (2 rows)" in card
    assert "any trainer that takes `messages`" not in card
    assert "undesirable" in (made.corpus.path / "corpus.html").read_text("utf-8")


def test_show_prints_the_rejected_answer(prepare_rows: Any, tiny_model: Path) -> None:
    made = prepare_rows(pairs(1))
    view = show_corpus(made.corpus.path, model=str(tiny_model))
    assert "    assistant: It is 0.\n    rejected:  No idea about 0." in render_view(view)
    assert view.lengths is not None
    assert (view.lengths.unit, view.lengths.measured) == ("tokens", 1)


def test_mask_shows_both_answers_and_only_them_as_learnt(prepare_rows: Any, tiny_model: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Oh"), ("user", "Up?"))]
    row: Row = {"prompt": turns, "chosen": [{"role": "assistant", "content": "Yes."}], "rejected": "No."}
    text = render_mask(show_mask(prepare_rows([row]).corpus.path, model=str(tiny_model)))
    assert (
        "Oh<|im_end|>\n    <|im_start|>user\n    Up?<|im_end|>\n    <|im_start|>assistant\n    ⟦Yes.<|im_end|>⟧" in text
    )
    assert text.splitlines()[-1] == "    ⟦No.<|im_end|>⟧"
    assert text.splitlines()[-2].startswith("    rejected (")


def test_dry_run_shows_both_answers(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", pairs(1))
    text = render_preview(preview(PrepareRequest(tmp_path / "corpus", sources=(str(source),))))
    assert "preference pairs" in text
    assert "chosen, prompt, rejected" in text
    assert "⟦It is 0." in text
    assert "⟦No idea about 0." in text


def test_json_has_the_pair(prepare_rows: Any, tmp_path: Path) -> None:
    from ..command import run

    done = run("show", prepare_rows(pairs(1)).corpus.path, "--json", cwd=tmp_path)
    (sample,) = json.loads(done.stdout)["samples"]
    assert [turn["content"] for turn in sample["rejected"]] == ["What is number 0?", "No idea about 0."]


def test_prepare_suggests_the_method_for_pairs(tmp_path: Path) -> None:
    from ..command import run

    done = run("prepare", "--source", write_jsonl(tmp_path / "rows.jsonl", pairs(3)), cwd=tmp_path)
    assert "next             slmtune train --method dpo" in done.stdout, done.stderr
    refused = run("train", cwd=tmp_path)
    assert (refused.returncode, "--method dpo" in refused.stderr) == (2, True)
