"""Code, translations and summaries keep what makes them, and are compared by what they ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.records import RecipeTask

from .conftest import Prepared, Preparer, write_jsonl

BODY = "    total = 0\n    for n in numbers:\n        total += n  # a sum\n\n\n    return total"


def prepare_task(
    prepared: Preparer, folder: Path, task: RecipeTask, rows: dict[str, list[dict[str, Any]]], **options: Any
) -> Prepared:
    domain = folder / "domain"
    (domain / "prompts").mkdir(parents=True)
    (domain / "prompts" / "ask.jinja").write_text("{{ ask }}\n", "utf-8")
    (domain / "recipe.yaml").write_text(
        "name: work\ntitle: Work\ndescription: Work.\ncaution: None.\nlanguages: [en]\n"
        f"tasks: {{work: {{task: {task}, prompt: prompts/ask.jinja}}}}\nsources: []\n"
        "sample: [{id: work, uri: '*.jsonl', license: mit, task: work}]\n",
        "utf-8",
    )
    for split, items in rows.items():
        write_jsonl(domain / f"{split}.jsonl", items)
    return prepared(domain=str(domain), sample=True, **options)


@pytest.mark.parametrize("clean", ["full", "light", "none"])
def test_code_keeps_its_blanks(clean: str, prepared: Preparer, tmp_path: Path) -> None:
    rows = {"train": [{"ask": "Complete the function that adds the numbers of a list.", "answer": BODY}]}
    (row,) = prepare_task(prepared, tmp_path, "code", rows, clean=clean).rows
    assert (row.task, row.answer) == ("code", BODY)


@pytest.mark.parametrize(
    "code", ["null", "{}", "x = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]" * 9]
)
def test_code_of_signs_and_repeats_is_no_bad_answer(code: str, prepared: Preparer, tmp_path: Path) -> None:
    rows = {"train": [{"ask": "Write the value that stands for nothing in this program.", "answer": code}]}
    assert prepare_task(prepared, tmp_path, "code", rows).result.dropped == {}


def test_language_of_code_is_that_of_its_question(prepared: Preparer, tmp_path: Path) -> None:
    german = "# Diese Funktion gibt den Mittelwert der Zahlen zurück, die in der Liste stehen\nreturn sum(zahlen) / len(zahlen)"
    rows = [{"ask": "Return the mean of the numbers that are in the list of the caller.", "answer": german}]
    rows += [
        {"ask": "Gib den Mittelwert der Zahlen zurück, die in der Liste des Aufrufers stehen.", "answer": "return 1"}
    ]
    made = prepare_task(prepared, tmp_path, "code", {"train": rows})
    assert (len(made.rows), made.result.dropped) == (1, {"foreign_language": 1})


@pytest.mark.parametrize("task", ["code", "translation", "summarization"])
def test_question_of_the_test_split_is_not_trained_on(task: RecipeTask, prepared: Preparer, tmp_path: Path) -> None:
    ask = "The ferry leaves at seven in the morning from the northern pier."
    rows = {"train": [{"ask": ask, "answer": "One answer to it."}], "test": [{"ask": ask, "answer": "Another answer."}]}
    made = prepare_task(prepared, tmp_path, task, rows)
    assert (made.result.splits["test"], made.result.dropped) == (1, {"in_test": 1})
