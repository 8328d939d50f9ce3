"""The terminal says what an evaluation knows about rows of the training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finetune.cli.render.evaluation import render_evaluation
from finetune.evaluate import CleanScore, EvalResult, TaskScore

SCORE = TaskScore(5, "token_f1", None, None, {"token_f1": 0.1}, {"token_f1": 0.9}, 0.8, (0.5, 1.0), 0.01)


def test_rows_of_the_training_are_named_beside_the_figure_without_them() -> None:
    clean = CleanScore(2, {"token_f1": 0.1}, {"token_f1": 0.4}, 0.3, (0.0, 0.6))
    text = words(render(replace(SCORE, train_overlap=3, clean=clean)))
    assert "The adapter was trained on 3 of these rows" in text
    assert "0.100 → 0.400, +0.300 (+0.000 to +0.600)" in text
    assert "The adapter was trained on 5 of these rows." in words(render(replace(SCORE, train_overlap=5)))


def test_nothing_is_said_where_there_are_none_and_the_reason_where_nobody_knows() -> None:
    assert "train" not in render(replace(SCORE, train_overlap=0))
    assert "not compared with these: this machine did not train the adapter" in render(SCORE)


def words(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def render(score: TaskScore) -> str:
    return render_evaluation(EvalResult(Path("eval/report.html"), {"mixed": score}, 1.0, 1), "slmtune merge")
