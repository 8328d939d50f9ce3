"""What an evaluation during training measures besides the loss: how well labels are answered."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Corpus
from finetune.errors import InputError
from finetune.models.find import BaseModel
from finetune.models.load import LoadedModel
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.scoring.answers import label_logprobs
from finetune.scoring.metrics import classification_scores
from finetune.scoring.tasks import hash_id

MOST_ROWS = 256  # are scored: the standard error of a share of them is at most 1 / (2 · sqrt(256)) = 3 %


class Validation(Protocol):
    """Rows of the validation split to which the model gives answers, and the scores of these."""

    def __len__(self) -> int:
        """Number of rows."""

    def answer(self, model: Any, rows: Sequence[int]) -> list[str]:
        """The answers of a PeftModel to some of the rows."""

    def score(self, answers: Sequence[str]) -> dict[str, float]:
        """The scores of the answers to all rows, by their names in `metric_for_best_model`."""


class LabelValidation:
    """The most likely label of each row, according to a causal language model.

    Args:
        model: the base model, still untouched.
        examples: rows with `choices`, of which one is their label.
    """

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, base: BaseModel, examples: Sequence[Example]
    ) -> None:
        self._tokenizer, self._base = tokenizer, base
        self._examples = sorted(examples, key=lambda row: sum(len(turn.content) for turn in row.prompt), reverse=True)
        self._attention = model.config._attn_implementation

    def __len__(self) -> int:
        return len(self._examples)

    def answer(self, model: Any, rows: Sequence[int]) -> list[str]:
        """The most likely label of each of the rows, computed with the model's own attention."""
        examples = [self._examples[row] for row in rows]
        with _attention_of(model.get_base_model(), self._attention):
            loaded = LoadedModel(model, self._tokenizer, self._base)
            logprobs = label_logprobs(loaded, examples, batch_size=len(examples))
        return [row.choices[scores.index(max(scores))] for row, scores in zip(examples, logprobs, strict=True)]

    def score(self, answers: Sequence[str]) -> dict[str, float]:
        """Accuracy and F1; if sets of labels differ, the mean over them, each weighted by its rows."""
        sets: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for example, answer in zip(self._examples, answers, strict=True):
            sets.setdefault(example.choices, []).append((str(example.label), answer))
        scores: dict[str, float] = {}
        for pairs in sets.values():
            for name, value in classification_scores(*zip(*pairs, strict=True)).items():
                scores[name] = scores.get(name, 0.0) + value * len(pairs) / len(answers)
        return scores


def require_validation(recipe: AdapterRecipe, corpus: Corpus) -> None:
    """Refuse settings that the user made for evaluations if there will be none.

    Raises:
        InputError: the corpus has no validation split, or `eval_steps` is 0; or the metric is that of another method.
    """
    if recipe.metric_for_best_model == "preference_accuracy" and recipe.method != "dpo":
        raise InputError(
            "--metric-for-best-model preference_accuracy compares pairs of answers: use it with --method dpo"
        )
    asked = [name for name in ("patience", "metric_for_best_model") if name in recipe.model_fields_set]
    if recipe.patience == 0 and "patience" in asked:
        asked.remove("patience")
    if not asked or (corpus.counts.get("validation") and recipe.eval_steps != 0):
        return
    option = f"--{asked[0].replace('_', '-')}"
    reason, remedy = (
        ("--eval-steps 0 turns them off", "Leave --eval-steps out")
        if recipe.eval_steps == 0
        else (f"the corpus at {corpus.path} has no validation split", "Prepare it again with --split-ratio")
    )
    raise InputError(f"{option} needs evaluations during training, but {reason}. {remedy}, or leave out {option}")


def count_scored(recipe: AdapterRecipe, corpus: Corpus) -> int:
    """About how many rows `labelled_rows` gives, without reading any."""
    tasks = set(corpus.manifest.get("by_task", {}))
    needs_labels = recipe.metric_for_best_model not in ("auto", "loss", "preference_accuracy")
    labelled = tasks == {"classification"} if recipe.metric_for_best_model == "auto" else needs_labels
    return min(MOST_ROWS, corpus.counts.get("validation", 0)) if labelled else 0


def labelled_rows(recipe: AdapterRecipe, held_out: Sequence[Example]) -> list[Example]:
    """The validation rows whose labels are scored in each evaluation, drawn by a hash of their ids if there are many.

    Raises:
        InputError: the metric needs labels, and no row has one.
    """
    metric = recipe.metric_for_best_model
    labelled = [row for row in held_out if row.label in row.choices]
    if metric in ("loss", "preference_accuracy") or not recipe.eval_steps:
        return []
    if metric == "auto" and len(labelled) < len(held_out):
        return []
    if not labelled and metric != "auto":
        raise InputError(
            f"--metric-for-best-model {metric} compares labels, and the validation split has no rows with a label and "
            "choices. Use --metric-for-best-model loss, or prepare a corpus of labelled rows"
        )
    return heapq.nsmallest(MOST_ROWS, labelled, key=hash_id)


def choose_metric(recipe: AdapterRecipe, scored: Sized | None) -> str:
    """The score that decides which evaluation is the best; `scored` are the rows whose labels are scored, if any."""
    if recipe.metric_for_best_model != "auto":
        return recipe.metric_for_best_model
    return "weighted_f1" if scored else "loss"


@contextmanager
def _attention_of(model: Any, name: str) -> Iterator[None]:
    """Let a base model use another attention function."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
