"""A gate: conditions are checked before a model is loaded, and a missed one ends the command with code 3."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from finetune.errors import ConfigError
from finetune.evaluate.answers import Answers
from finetune.evaluate.gate import METRICS, Condition, describe_condition, read_gate
from finetune.evaluate.request import Comparison, Forgetting, GateResult, PerplexityChange, TaskScore
from finetune.evaluate.score import score_rows, score_task
from finetune.records import Example, Message
from finetune.scoring.tasks import EvalTask, Metric

from ..command import run as slmtune


def rows(labels: tuple[str, ...] | None = None) -> tuple[Example, ...]:
    turns = (Message("user", "Up or down?"), Message("assistant", "up"))
    return tuple(Example(f"row-{n}", turns, "classification", labels=labels, source="news") for n in range(3))


NEWS = EvalTask("news", "weighted_f1", rows())
ODD = EvalTask("v1.2, final", "rouge_l", rows(), further=("token_f1",))
SCORE = TaskScore(
    n=9,
    metric="weighted_f1",
    majority=0.5,
    majority_label="up",
    base={"accuracy": 0.5, "weighted_f1": 0.5, "macro_f1": None},
    adapter={"accuracy": 0.8, "weighted_f1": 0.75, "macro_f1": None},
    delta=0.25,
    ci95=(0.1, 0.4),
    p_value=0.01,
    comparisons={"few_shot": Comparison(-0.05, (-0.1, 0.1), 0.5)},
    undefined={"macro_f1": "all rows have the same label"},
)


def test_conditions_are_divided_by_commas_and_flags() -> None:
    conditions = read_gate(["news.weighted_f1>=0.8, news.delta > 0", "v1.2, final.token_f1<1"], [NEWS, ODD])
    assert conditions == [
        Condition("news", "weighted_f1", ">=", 0.8),
        Condition("news", "delta", ">", 0.0),
        Condition("v1.2, final", "token_f1", "<", 1.0),
    ]


def test_what_was_forgotten_is_a_figure_where_it_is_measured() -> None:
    (condition,) = read_gate(["forgetting<=0.05"], [NEWS], with_forgetting=True)
    change = PerplexityChange(1, 10, 20.0, 22.0, 1.1, (1.0, 1.2))
    for drop, passed in ((0.04, True), (0.06, False)):
        forgetting = Forgetting(300, 0.5, 0.5 - drop, drop, (drop - 0.02, drop + 0.02), 0.2, {}, change)
        assert condition.check({}, forgetting) == GateResult("forgetting<=0.05", drop, passed)
    (ratio,) = read_gate(["perplexity<1.05"], [NEWS], with_forgetting=True)
    assert ratio.check({}, forgetting) == GateResult("perplexity<1.05", 1.1, False)
    with pytest.raises(ConfigError, match="forgetting is not measured"):
        read_gate(["forgetting<=0.05"], [NEWS])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("new.accuracy>0.5", "no task 'new'. Did you mean 'news'"),
        ("accuracy>0.5", "no task 'accuracy'. Known: news"),
        ("news.acuracy>0.5", "news has no figure 'acuracy'. Did you mean 'accuracy'"),
        ("news.accuracy>half", "'half' is no number"),
        ("news.accuracy>=80", "never >= 80: scores are from 0 to 1"),
        ("news.accuracy=0.5", "'news.accuracy=0.5' is no condition"),
        ("news.accuracy>0.5,", None),
        ("news.accuracy>0.5 news.delta>0", "'news.accuracy>0.5 news.delta>0' is no condition"),
        ("news.accuracy>=nan", "never >= nan"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, problem: str | None) -> None:
    if problem is None:
        assert read_gate([text], [NEWS])
        return
    with pytest.raises(ConfigError) as refusal:
        read_gate([text], [NEWS])
    assert problem in str(refusal.value)


def test_figures_of_the_harness_are_known_only_afterwards() -> None:
    (condition,) = read_gate(["lm-eval/arc_easy.acc_norm>=0.6"], [NEWS], ["lm-eval/arc_easy"])
    assert condition.check({"lm-eval/arc_easy": replace(SCORE, adapter={"acc_norm": 0.7})}).passed
    assert not condition.check({"lm-eval/arc_easy": replace(SCORE, adapter={"acc": 0.7})}).passed


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)no task 'tfns'.*no figure 'f1'"):
        read_gate(["tfns.accuracy>0.5,news.f1>0.5"], [NEWS])


@pytest.mark.parametrize(
    ("condition", "passed", "shown"),
    [
        ("news.weighted_f1>=0.75", True, "(0.7500)"),
        ("news.weighted_f1>0.75", False, "(0.7500)"),
        ("news.delta<=0.25", True, "(0.2500)"),
        ("news.few_shot_delta>0", False, "(-0.0500)"),
        ("news.macro_f1>0", False, "(not defined, because all rows have the same label)"),
    ],
)
def test_condition_is_met_or_not(condition: str, passed: bool, shown: str) -> None:
    result = read_gate([condition], [NEWS])[0].check({"news": SCORE})
    assert result.passed is passed
    assert describe_condition(result) == f"{condition} {shown}"


@pytest.mark.parametrize("metric", get_args(Metric))
def test_every_figure_of_a_task_can_be_in_a_condition(metric: Metric) -> None:
    """The figures are known before there are any: those of a real task are compared with the list."""
    task = EvalTask("task", metric, rows(("up",) if metric == "micro_f1" else None))
    answers = Answers(
        ["up = 1"] * 3,
        [{"chosen": 0.6, "rejected": 0.4}] * 3 if metric == "preference_accuracy" else [],
        [("up",)] * 3,
        [(-1.0, -2.0)] * 3 if metric == "preference_accuracy" else [],
    )
    both = {"base": answers, "adapter": answers}
    given = set(score_task(task, score_rows(task, both), both, "base", {}).adapter)
    assert given | {"parses"} == set(METRICS.get(metric, (metric,))) | {"parses"}


def test_missed_condition_ends_with_code_3_after_the_report(
    tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    command = ("eval", tiny_adapter, "--corpus", tiny_corpus, "--task", "news", "--limit", 4, "--no-forgetting")
    missed = slmtune(*command, "--out", "out", "--gate", "news.accuracy>=0,news.accuracy<0", cwd=tmp_path)
    assert missed.returncode == 3
    assert "gate failed: news.accuracy<0 (" in missed.stdout
    assert missed.stderr.splitlines()[-1].startswith("Error: The adapter misses 1 of 2 conditions of --gate")
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert [one["passed"] for one in report["gate"]] == [True, False]


def test_met_conditions_are_said(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    command = ("eval", tiny_adapter, "--corpus", tiny_corpus, "--task", "news", "--limit", 4, "--no-forgetting")
    met = slmtune(*command, "--out", "out", "--gate", "news.accuracy>=0", cwd=tmp_path)
    assert met.returncode == 0, met.stderr
    assert "gate passed: news.accuracy>=0 (" in met.stdout


def test_wrong_condition_is_refused_before_anything_is_loaded(
    tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    command = ("eval", tiny_adapter, "--corpus", tiny_corpus, "--out", "out", "--gate", "news.acuracy>0.5")
    refused = slmtune(*command, cwd=tmp_path)
    assert refused.returncode == 2
    assert "Did you mean 'accuracy'" in refused.stderr
    assert "Loading" not in refused.stderr
    assert list(tmp_path.iterdir()) == []
