"""The figures of a task: those that have nothing to say are reported as such, and nothing fails for lack of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import pytest
from sklearn.metrics import precision_recall_fscore_support

from finetune.evaluate.answers import Answers
from finetune.evaluate.request import TaskScore
from finetune.evaluate.score import score_rows, score_task
from finetune.records import Example, Message
from finetune.scoring.tasks import EvalTask

CHOICES = ("up", "down", "flat")


def labelled(labels: Sequence[str], choices: tuple[str, ...] = CHOICES) -> EvalTask:
    rows = [
        Example(
            f"row-{number}",
            (Message("user", f"Row {number}?"), Message("assistant", label)),
            "classification",
            label=label,
            choices=choices,
            source="news",
        )
        for number, label in enumerate(labels)
    ]
    return EvalTask("news", "weighted_f1", tuple(rows))


def sure(texts: Sequence[str], share: float = 0.8) -> Answers:
    rest = (1 - share) / (len(CHOICES) - 1)
    return Answers(list(texts), [{name: share if name == text else rest for name in CHOICES} for text in texts])


def score(task: EvalTask, **answers: Answers) -> TaskScore:
    return score_task(task, score_rows(task, answers), answers, "base", {})


def test_classes_are_those_of_scikit_learn() -> None:
    truth, given = ["up", "up", "down", "down", "flat", "up"], ["up", "down", "down", "up", "up", "up"]
    classes = score(labelled(truth), base=sure(truth), adapter=sure(given)).details["adapter"].classes
    precision, recall, f1, size = precision_recall_fscore_support(truth, given, labels=CHOICES, zero_division=0)
    assert [one.label for one in classes] == list(CHOICES)
    assert [one.precision or 0 for one in classes] == pytest.approx(precision.tolist())
    assert [one.recall or 0 for one in classes] == pytest.approx(recall.tolist())
    assert [one.f1 or 0 for one in classes] == pytest.approx(f1.tolist())
    assert [one.expected for one in classes] == size.tolist()
    assert [one.given for one in classes] == [4, 2, 0]


def test_class_without_rows_has_no_figures() -> None:
    flat = (
        score(labelled(["up", "down"]), base=sure(["up", "up"]), adapter=sure(["up", "down"])).details["base"].classes
    )
    assert (flat[2].label, flat[2].precision, flat[2].recall, flat[2].f1) == ("flat", None, None, None)
    assert (flat[1].label, flat[1].precision, flat[1].recall, flat[1].f1) == ("down", None, 0.0, 0.0)


def test_rows_with_choices_of_their_own_are_no_classes() -> None:
    task = labelled(["Paris", "Oslo"], ("Paris", "Rome"))
    own = EvalTask("news", "weighted_f1", (task.examples[0], labelled(["Oslo"], ("Bonn", "Oslo")).examples[0]))
    result = score(own, base=Answers(["Rome", "Oslo"]), adapter=Answers(["Paris", "Oslo"]))
    assert result.details["adapter"].classes == ()
    assert "Oslo" not in str(asdict(result))


def test_single_label_leaves_f1_undefined_and_compares_accuracy() -> None:
    result = score(labelled(["up"] * 8), base=sure(["down"] * 8), adapter=sure(["up"] * 7 + ["flat"]))
    assert result.adapter == {"accuracy": 0.875, "weighted_f1": None, "macro_f1": None}
    assert set(result.undefined) == {"weighted_f1", "macro_f1"}
    assert (result.metric, result.delta, result.headline) == ("accuracy", 0.875, {"base": 0.0, "adapter": 0.875})
    assert result.comparisons["base"].mcnemar_p_value == pytest.approx(2 / 2**7)


def test_rows_without_any_label_leave_f1_undefined() -> None:
    rows = [
        Example(f"r{n}", (Message("user", "?"), Message("assistant", "none")), "classification", labels=())
        for n in range(4)
    ]
    none = Answers(["none"] * 4, [], [()] * 4)
    some = Answers(["a"] * 4, [], [("a",)] * 4)
    result = score(EvalTask("topics", "micro_f1", tuple(rows)), base=some, adapter=none)
    assert (result.metric, result.delta) == ("exact_match", 1.0)
    assert result.adapter == {"micro_f1": None, "macro_f1": None, "exact_match": 1.0}


@pytest.mark.parametrize("metric", ["weighted_f1", "token_f1", "rouge_l", "chrf", "edit_similarity"])
def test_one_row_with_empty_answers_has_figures(metric: Literal["weighted_f1", "token_f1"]) -> None:
    task = EvalTask("one", metric, labelled(["up"]).examples)
    result = score(task, base=Answers([""]), adapter=Answers([""]))
    assert result.n == 1
    assert (result.delta, result.ci95, result.p_value) == (0.0, (-1.0, 1.0), 1.0)
    assert result.details["adapter"].ci95 == (0.0, 1.0)


def test_all_wrong_is_zero_for_everyone() -> None:
    truth = ["up", "down"] * 6
    result = score(labelled(truth), base=sure(["flat"] * 12), adapter=sure(["flat"] * 12))
    assert result.headline == {"base": 0.0, "adapter": 0.0}
    assert (result.delta, result.p_value, result.comparisons["base"].mcnemar_p_value) == (0.0, 1.0, 1.0)


def test_every_contestant_has_an_interval_a_comparison_and_calibration() -> None:
    truth = list(CHOICES) * 10
    others: Mapping[str, Any] = {"few_shot": sure(["up"] * 30), "rival": Answers(truth)}
    result = score(labelled(truth), base=sure(["down"] * 30), **others, adapter=sure(truth, 0.9))
    assert list(result.scores) == ["base", "few_shot", "rival", "adapter"]
    assert set(result.comparisons) == {"base", "few_shot", "rival"}
    assert result.comparisons["base"].delta == result.delta
    for name, details in result.details.items():
        assert details.ci95[0] <= result.headline[name] <= details.ci95[1]
    assert result.details["rival"].calibration is None
    assert result.details["adapter"].calibration is not None
    assert result.details["adapter"].calibration.ece == pytest.approx(0.1)
    assert (result.comparisons["few_shot"].better, result.comparisons["few_shot"].worse) == (20, 0)


def test_answers_that_cannot_be_read_are_counted() -> None:
    unread = Answers(["up", "who knows", ""], unparsable=frozenset({1}), abstained=frozenset({2}))
    result = score(labelled(["up", "down", "down"]), base=sure(["up"] * 3), api=unread, adapter=sure(["up"] * 3))
    assert (result.details["api"].unparsable, result.details["api"].abstained) == (1, 1)
    assert result.vs["api"]["accuracy"] == pytest.approx(1 / 3)


def test_each_way_to_score_labels_has_its_figures() -> None:
    base = replace(
        sure(["up", "up"]), scoring="calibrated", scorings={"raw": ["up", "up"], "calibrated": ["up", "down"]}
    )
    details = score(labelled(["up", "down"]), base=base, adapter=sure(["up", "down"])).details
    assert details["base"].scoring == "calibrated"
    assert {way: figures["accuracy"] for way, figures in details["base"].scorings.items()} == {
        "raw": 0.5,
        "calibrated": 1,
    }
    assert (details["adapter"].scoring, details["adapter"].scorings) == (None, {})


def test_examples_in_the_prompt_are_counted() -> None:
    shown = replace(sure(["up", "down"]), shots=5)
    assert score(labelled(["up", "down"]), base=sure(["up"] * 2), few_shot=shown, adapter=sure(["up"] * 2)).shots == 5


def test_guesses_are_expectations_over_the_choices() -> None:
    truth = ["up"] * 6 + ["down"] * 3
    result = score(labelled(truth), base=sure(truth), adapter=sure(truth))
    assert result.majority == pytest.approx(2 / 3)
    assert result.majority_label == "up"
    assert result.random == pytest.approx(1 / 3)
    up, down = 2 * (6 / 3) / (6 + 3), 2 * (3 / 3) / (3 + 3)  # of 9 rows, 3 are given each label
    assert result.guesses["random"]["weighted_f1"] == pytest.approx((6 * up + 3 * down) / 9)
    assert result.guesses["majority"]["weighted_f1"] == pytest.approx(2 / 3 * 0.8)
