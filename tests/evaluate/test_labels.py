"""Which way of scoring labels counts: the base model gets the one that suits it best, an adapter the one it was trained for."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.artifacts import Adapter
from finetune.evaluate.answers import pick_labels
from finetune.evaluate.contestants.causal import ask_model
from finetune.models.load import load_adapter
from finetune.models.structure import has_adapter
from finetune.records import Example
from finetune.scoring.label_scores import LabelScores
from finetune.scoring.metrics import classification_scores
from finetune.scoring.tasks import EvalTask

from ..conftest import chat

CHOICES = ("up", "down further")


def task_of(*labels: str) -> EvalTask:
    rows = [
        Example(str(n), chat(f"Row {n}?", label), "classification", label, CHOICES) for n, label in enumerate(labels)
    ]
    return EvalTask("news", "weighted_f1", tuple(rows))


# Raw, "up" wins in all rows; per token, the longer label does; compared with priors, each row gets its label.
SCORES = (
    LabelScores((-2.0, -3.0), (1, 2), (-2.5, -3.0), 0),
    LabelScores((-2.5, -2.9), (1, 2), (-2.5, -3.0), 0),
)


@pytest.mark.parametrize(
    ("labels", "scoring"),
    [(("up", "down further"), "calibrated"), (("down further", "down further"), "normalized"), (("up", "up"), "raw")],
)
def test_model_without_adapter_gets_the_way_that_suits_it_best(labels: tuple[str, str], scoring: str) -> None:
    task = task_of(*labels)
    answers = pick_labels(task, SCORES, tuned=False)
    assert answers.scoring == scoring
    assert answers.texts == list(labels)
    for row, text in zip(answers.probabilities, answers.texts, strict=True):
        assert max(row, key=lambda choice: row[choice]) == text
    assert answers.scorings == {
        "raw": ["up", "up"],
        "normalized": ["down further", "down further"],
        "calibrated": ["up", "down further"],
    }


def test_adapter_is_scored_as_it_was_trained() -> None:
    answers = pick_labels(task_of("down further", "down further"), SCORES, tuned=True)
    assert (answers.scoring, answers.texts) == ("raw", ["up", "up"])


def test_disabled_adapter_is_no_adapter(tiny_adapter: Path) -> None:
    loaded, task = load_adapter(Adapter.open(tiny_adapter)), task_of("down further", "up")
    assert has_adapter(loaded.model)
    assert ask_model(loaded, task, batch_size=2, max_new_tokens=1, on_rows=lambda _: None).scoring == "raw"
    with loaded.model.disable_adapter():
        assert not has_adapter(loaded.model)
        base = ask_model(loaded, task, batch_size=2, max_new_tokens=1, on_rows=lambda _: None)
    assert not has_adapter(loaded.model.get_base_model())
    references = [str(row.label) for row in task.examples]
    scores = {way: classification_scores(references, texts)["weighted_f1"] for way, texts in base.scorings.items()}
    assert base.scoring is not None
    assert scores[base.scoring] == max(scores.values())
