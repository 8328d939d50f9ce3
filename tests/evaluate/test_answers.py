"""What is read from generated answers before they are scored."""

from __future__ import annotations

from finetune.evaluate.answers import Answers, read_texts
from finetune.records import Example
from finetune.scoring.tasks import EvalTask

from ..conftest import chat


def test_answers_without_the_number_that_was_asked_for_are_counted() -> None:
    rows = tuple(Example(str(n), chat("How many?", answer), "qa") for n, answer in enumerate(["4", "0.05", "yes"]))
    task = EvalTask("figures", "number_match", rows)
    assert read_texts(task, ["about four", "5%", "no idea"]).unparsable == {0}
    assert read_texts(EvalTask("figures", "token_f1", rows), ["four", "", "no"]).unparsable == frozenset()


def test_some_of_the_answers_keep_all_that_is_known_about_them() -> None:
    answers = Answers(
        ["a", "b", "a"],
        [{"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}, {"a": 0.6, "b": 0.4}],
        unparsable=frozenset({2}),
        abstained=frozenset({1}),
        shots=4,
        scoring="raw",
        scorings={"raw": ["a", "b", "a"], "normalized": ["b", "b", "a"]},
    )
    assert answers.take([2, 0]) == Answers(
        ["a", "a"],
        [{"a": 0.6, "b": 0.4}, {"a": 0.9, "b": 0.1}],
        unparsable=frozenset({0}),
        shots=4,
        scoring="raw",
        scorings={"raw": ["a", "a"], "normalized": ["a", "b"]},
    )
