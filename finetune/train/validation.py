"""What an evaluation during training measures besides the loss: how good the answers to validation rows are."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Corpus
from finetune.corpus.store import read_table, to_example
from finetune.errors import InputError
from finetune.models.encoder_inputs import encode
from finetune.models.find import BaseModel
from finetune.models.heads import Head, HeadKind
from finetune.models.load import LoadedModel
from finetune.models.structure import attention_of
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.scoring.encoders import Excerpt, Labelling, Prediction, predict
from finetune.scoring.labels import label_logprobs
from finetune.scoring.metrics import answer_f1, answer_match, classification_scores, label_set_scores
from finetune.scoring.tasks import HEAD_METRICS, hash_id, reference_labels

MOST_ROWS = 256  # are scored: the standard error of a share of them is at most 1 / (2 · sqrt(256)) = 3 %
LABELS = ("weighted_f1", "macro_f1", "accuracy")
METRICS: Mapping[HeadKind, tuple[str, ...]] = {
    "classification": LABELS,
    "multi-label": ("micro_f1", "macro_f1", "exact_match"),
    "extraction": ("answer_f1", "exact_match"),
}


class Validation(Protocol):
    """Rows of the validation split to which the model gives answers, and the scores of these."""

    @property
    def head(self) -> Head | None:
        """The head of an encoder."""

    def __len__(self) -> int:
        """Number of rows."""

    def answer(self, model: Any, rows: Sequence[int]) -> list[Any]:
        """The answers of a PeftModel to some of the rows."""

    def score(self, answers: Sequence[Any]) -> dict[str, float]:
        """The scores of the answers to all rows, by their names in `metric_for_best_model`."""


class LabelValidation:
    """The most likely label of each row, according to a causal language model.

    Args:
        model: the base model, still untouched.
        examples: rows with `choices`, of which one is their label.
    """

    head = None

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
        with attention_of(model.get_base_model(), self._attention):
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


class EncoderValidation:
    """The labels of each row or the answer in its context, according to the head of an encoder.

    Args:
        model: the encoder with its head, still untouched.
        max_length: in tokens, as in training.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        base: BaseModel,
        head: Head,
        examples: Sequence[Example],
        max_length: int,
    ) -> None:
        self._loaded = LoadedModel(model, tokenizer, base, head)
        self.head, self._attention = head, model.config._attn_implementation
        pairs = [(encode(tokenizer, example, max_length), example) for example in examples]
        pairs.sort(key=lambda pair: len(pair[0].ids), reverse=True)
        self._inputs, self._examples = [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def __len__(self) -> int:
        return len(self._examples)

    def answer(self, model: Any, rows: Sequence[int]) -> list[Prediction]:
        """What the head says about each of the rows, computed with the model's own attention.

        The layers inside the PeftModel are asked: with questions, it does not pass token types on (peft 0.21).
        """
        inputs, contexts = [self._inputs[row] for row in rows], [self._examples[row].context for row in rows]
        inner = model.get_base_model()
        with attention_of(inner, self._attention):
            return predict(replace(self._loaded, model=inner), inputs, contexts, batch_size=len(rows))

    def score(self, answers: Sequence[Prediction]) -> dict[str, float]:
        """F1 and accuracy of labels, F1 and exact matches of sets of labels or of answers."""
        if self.head.kind == "extraction":
            texts = [answer.text for answer in answers if isinstance(answer, Excerpt)]
            both = [(row.answer, text) for row, text in zip(self._examples, texts, strict=True)]
            measures = {"answer_f1": answer_f1, "exact_match": answer_match}
            return {name: sum(measure(*pair) for pair in both) / len(both) for name, measure in measures.items()}
        labels = [answer.labels for answer in answers if isinstance(answer, Labelling)]
        if self.head.kind == "multi-label":
            return label_set_scores([reference_labels(row) for row in self._examples], labels)
        return classification_scores([str(row.label) for row in self._examples], [label for (label,) in labels])


def require_validation(recipe: AdapterRecipe, corpus: Corpus, head: Head | None) -> None:
    """Refuse settings that the user made for evaluations if there will be none, and a metric that is not measured.

    Raises:
        InputError: the corpus has no validation split, or `eval_steps` is 0; or the rows have another metric.
    """
    wishes = {"patience": recipe.patience != 0, "metric_for_best_model": recipe.metric_for_best_model != "auto"}
    asked = [name for name, wished in wishes.items() if wished and name in recipe.model_fields_set]
    if asked and not (corpus.counts.get("validation") and recipe.eval_steps != 0):
        option = f"--{asked[0].replace('_', '-')}"
        reason, remedy = (
            ("--eval-steps 0 turns them off", "Leave --eval-steps out")
            if recipe.eval_steps == 0
            else (f"the corpus at {corpus.path} has no validation split", "Prepare it again with --split-ratio")
        )
        raise InputError(f"{option} needs evaluations during training, but {reason}. {remedy}, or leave out {option}")
    names = ("preference_accuracy",) if recipe.method == "dpo" else METRICS[head.kind] if head else LABELS
    if recipe.metric_for_best_model not in ("auto", "loss", *names):
        raise InputError(
            f"--metric-for-best-model {recipe.metric_for_best_model} is not measured on these rows. Use auto, loss, "
            f"{' or '.join(names)}"
        )


def count_scored(recipe: AdapterRecipe, corpus: Corpus, head: Head | None) -> int:
    """About how many rows `scored_rows` gives, without reading any."""
    if recipe.metric_for_best_model in ("loss", "preference_accuracy"):
        return 0
    tasks = set(corpus.manifest.get("by_task", {}))
    scores_all = head is not None or recipe.metric_for_best_model != "auto" or tasks == {"classification"}
    return min(MOST_ROWS, corpus.counts.get("validation", 0)) if scores_all else 0


def scored_rows(recipe: AdapterRecipe, corpus: Corpus, head: Head | None) -> list[Example]:
    """The validation rows to which each evaluation scores the answers, drawn by a hash of their ids if there are many.

    Raises:
        InputError: the metric needs labels, and no row has one.
    """
    metric = recipe.metric_for_best_model
    if metric in ("loss", "preference_accuracy") or not recipe.eval_steps:
        return []
    held_out = read_table(corpus, "validation")
    known = held_out.select(["id", "label", "choices"]).to_pylist()
    rows = [place for place, row in enumerate(known) if head is not None or row["label"] in (row["choices"] or ())]
    if metric == "auto" and (not rows or len(rows) < len(known)):
        return []
    if not rows:
        raise InputError(
            f"--metric-for-best-model {metric} compares labels, and the validation split has no rows with a label and "
            "choices. Use --metric-for-best-model loss, or prepare a corpus of labelled rows"
        )
    drawn = heapq.nsmallest(MOST_ROWS, rows, key=lambda place: hash_id(known[place]["id"]))
    return [to_example(row) for row in held_out.take(drawn).to_pylist()]


def choose_metric(recipe: AdapterRecipe, head: Head | None, scored: Sized | None) -> str:
    """The score that decides which evaluation is the best; `scored` are the rows whose answers are scored, if any."""
    if recipe.metric_for_best_model != "auto":
        return recipe.metric_for_best_model
    if not scored:
        return "loss"
    return HEAD_METRICS[head.kind] if head else "weighted_f1"


def plan_metric(recipe: AdapterRecipe, corpus: Corpus, head: Head | None) -> str | None:
    """What `choose_metric` will return for a corpus; None if nothing is evaluated."""
    if not recipe.eval_steps:
        return None
    return choose_metric(recipe, head, scored_rows(recipe, corpus, head))
