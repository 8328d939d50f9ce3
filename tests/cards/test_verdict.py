"""The verdict says no more than the figures show."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.cards.verdict import verdict


def difference(delta: float, low: float, high: float, p_value: float = 0.0005) -> dict[str, Any]:
    return {"delta": delta, "ci95": [low, high], "p_value": p_value}


GAIN, LOSS, NOTHING = difference(0.565, 0.469, 0.654), difference(-0.2, -0.3, -0.1), difference(0.02, -0.03, 0.07, 0.4)


def task(against_base: dict[str, Any], **further: Any) -> dict[str, Any]:
    comparisons = {"base": against_base, **further.pop("comparisons", {})}
    usual = {"majority": None, "majority_label": None, "adapter": {"token_f1": 0.5}, "baseline": "base", "vs": {}}
    return {**usual, **against_base, "comparisons": comparisons, **further}


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        (GAIN, "The adapter is better than its base model by 0.56 (0.47 to 0.65)."),
        (LOSS, "The adapter is worse than its base model by 0.20 (0.10 to 0.30)."),
        (NOTHING, "The adapter is not measurably different from its base model: +0.02 (-0.03 to +0.07)."),
        (
            difference(1, 1, 1, 0.06),
            "The adapter is not measurably different from its base model: +1.00 (+1.00 to +1.00).",
        ),
    ],
    ids=["better", "worse", "unclear", "interval without spread"],
)
def test_difference_from_the_base_is_said_with_its_interval(figures: dict[str, Any], sentence: str) -> None:
    assert verdict(task(figures)) == sentence


def test_examples_in_the_prompt_answer_whether_tuning_paid() -> None:
    def against(few_shot: dict[str, Any]) -> str:
        return verdict(task(GAIN, comparisons={"few_shot": few_shot}, few_shot={"token_f1": 0.4}, shots=5))

    assert ", and better than 5 examples in the prompt by 0.56 (0.47 to 0.65): tuning paid." in against(GAIN)
    assert "It is not measurably different from 5 examples in the prompt: +0.02" in against(NOTHING)
    assert against(NOTHING).endswith(": such a prompt may do as well as tuning.")
    assert against(LOSS).endswith("by 0.20 (0.10 to 0.30): such a prompt does more than tuning did.")


def test_other_contestants_are_named_by_outcome() -> None:
    comparisons = {"llama": GAIN, "api": LOSS, "old": NOTHING, "gguf": GAIN}
    text = verdict(task(GAIN, comparisons=comparisons, vs=dict.fromkeys(comparisons)))
    assert text.endswith("It is better than llama and gguf, worse than api and not measurably different from old.")


def test_adapter_below_the_majority_is_called_that() -> None:
    below = {"majority": 0.5, "majority_label": "up", "adapter": {"accuracy": 0.5}}
    assert verdict(task(GAIN, **below)).endswith("It is not more accurate than always answering “up”.")
    assert "always" not in verdict(task(GAIN, **below | {"majority": 0.4}))
    for label in ("x" * 80, None):
        assert "always giving the most frequent answer" in verdict(task(GAIN, **below | {"majority_label": label}))


def test_encoder_is_compared_with_its_baseline() -> None:
    assert "better than the most frequent label by" in verdict(task(GAIN, baseline="majority"))
