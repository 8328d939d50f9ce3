"""What is read from generated answers before they are scored."""

from __future__ import annotations

from finetune.evaluate.answers import read_texts
from finetune.records import Example
from finetune.scoring.tasks import EvalTask

from ..conftest import chat


def test_answers_without_the_number_that_was_asked_for_are_counted() -> None:
    rows = tuple(Example(str(n), chat("How many?", answer), "qa") for n, answer in enumerate(["4", "0.05", "yes"]))
    task = EvalTask("figures", "number_match", rows)
    assert read_texts(task, ["about four", "5%", "no idea"]).unparsable == {0}
    assert read_texts(EvalTask("figures", "token_f1", rows), ["four", "", "no"]).unparsable == frozenset()
