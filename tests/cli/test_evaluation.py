"""The terminal's view of an evaluation: narrow enough, whole figures, and what they mean."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune.cli.render.evaluation import render_scores
from finetune.evaluate import Comparison, TaskScore
from finetune.evaluate.details import Calibration, ModelDetails

COMPARISON = Comparison(0.1, (0.05, 0.15), 0.0005)
NAMES = ("few_shot", "SmolLM2-135M-Instruct", "my-earlier-adapter", "llama-3.2-1b-q4_k_m.gguf")
LABELS = TaskScore(
    n=180,
    metric="weighted_f1",
    majority=1 / 3,
    majority_label="up",
    base={"accuracy": 0.35, "weighted_f1": 0.2011, "macro_f1": 0.1987},
    adapter={"accuracy": 0.75, "weighted_f1": 0.7662, "macro_f1": 0.7423},
    delta=0.5651,
    ci95=(0.4689, 0.6536),
    p_value=0.00049975,
    few_shot={"accuracy": 0.6, "weighted_f1": 0.6, "macro_f1": 0.6},
    vs={name: {"accuracy": 0.6, "weighted_f1": 0.6, "macro_f1": 0.6} for name in NAMES[1:]},
    comparisons={"base": Comparison(0.5651, (0.4689, 0.6536), 0.00049975)} | dict.fromkeys(NAMES, COMPARISON),
    details=dict.fromkeys(("base", *NAMES, "adapter"), ModelDetails((0.512, 0.655))),
    random=1 / 3,
    guesses={name: {"accuracy": 1 / 3, "weighted_f1": 0.1667} for name in ("majority", "random")},
)
WORSE, BETTER = {"accuracy": 0.25}, {"accuracy": 0.5}
CODE = TaskScore(
    n=9,
    metric="edit_similarity",
    majority=None,
    majority_label=None,
    base={"edit_similarity": 0.5, "exact_match": 0.1, "parses": 0.9},
    adapter={"edit_similarity": 0.5, "exact_match": 0.1, "parses": 0.9},
    delta=0.0,
    ci95=(-0.2, 0.3),
    p_value=0.7,
    comparisons={"base": Comparison(0.0, (-0.2, 0.3), 0.7)},
    details=dict.fromkeys(("base", "adapter"), ModelDetails((0.4, 0.6))),
)
SURE = ModelDetails((0.5, 0.6), calibration=Calibration(0.0712, ()))


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_six_contestants_fit_in_80_columns_with_whole_figures() -> None:
    lines = render_scores({"news": LABELS, "code": CODE}).splitlines()
    assert max(map(len, lines)) <= 80
    base = next(line for line in lines if line.startswith("base "))
    assert base.split() == "base 0.350 0.201 0.512 to 0.655 +0.565 +0.469 to +0.654 0.0005".split()
    rival = next(line for line in lines if line.startswith("llama"))
    assert "+0.050 to +0.150" in rival
    assert next(line for line in lines if line.startswith("random")).split() == ["random", "0.333", "0.167"]


def test_verdict_is_below_the_figures() -> None:
    text = " ".join(render_scores({"news": LABELS}).split())
    assert "better than its base model by 0.57 (0.47 to 0.65), and better than examples in the prompt by 0.10" in text
    assert text.endswith("It is better than SmolLM2-135M-Instruct, my-earlier-adapter and llama-3.2-1b-q4_k_m.gguf.")


def test_what_is_not_defined_or_missing_has_its_reason() -> None:
    scores = {"accuracy": 0.5, "weighted_f1": None, "macro_f1": None}
    task = replace(
        LABELS,
        metric="accuracy",
        base=scores,
        adapter=scores,
        few_shot=None,
        vs={},
        guesses={},
        undefined={"weighted_f1": "all rows have the same label"},
        absent={"api": "it gives no probabilities"},
        details={
            "base": ModelDetails((0.5, 0.6), scoring="normalized", scorings={"raw": WORSE, "normalized": BETTER}),
            "adapter": ModelDetails((0.5, 0.6), unparsable=3, abstained=1),
        },
    )
    text = " ".join(render_scores({"news": task}).split())
    assert "Weighted F1 is not defined: all rows have the same label." in text
    assert "api is left out: it gives no probabilities." in text
    assert "Labels are scored: base normalized." in text
    assert "adapter: 3 answers are not what was asked for" in text


def test_calibration_is_said_where_there_are_probabilities() -> None:
    task = replace(LABELS, details={**LABELS.details, "base": replace(SURE, unparsable=1), "adapter": SURE})
    assert "Expected calibration error: base 0.071, adapter 0.071." in render_scores({"news": task})


def test_task_of_the_harness_has_its_own_metrics() -> None:
    scores = {"acc": 0.5, "acc_norm": 0.625}
    task = replace(CODE, metric="acc", base=scores, adapter=scores, scorer="lm-evaluation-harness 0.4")
    assert "adapter  0.500     0.625  0.400 to 0.600" in render_scores({"lm-eval/arc": task})


def test_encoder_has_its_baseline_once() -> None:
    text = render_scores({"news": replace(LABELS, baseline="majority", few_shot=None, vs={})})
    assert [line.split()[0] for line in text.splitlines()[3:6]] == ["random", "majority", "adapter"]
