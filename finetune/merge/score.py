"""The score of a model on held-out rows, where answers are picked: a merged model and its adapter should have the same."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.evaluate.contestants.encoder import ask_encoder, refuse_encoder
from finetune.models.load import LoadedModel
from finetune.records import Example
from finetune.scoring import metrics
from finetune.scoring.labels import score_labels
from finetune.scoring.tasks import HEAD_METRICS, EvalTask, reference_labels

BATCH_SIZE = 16


def score_rows(loaded: LoadedModel, rows: Sequence[Example], max_length: int) -> float | None:
    """F1 of labels, or of extracted answers; None if no row has any. Written answers are compared by their loss alone."""
    return _score_text_model(loaded, rows) if loaded.head is None else _score_encoder(loaded, rows, max_length)


def _score_text_model(loaded: LoadedModel, rows: Sequence[Example]) -> float | None:
    rows = [row for row in rows if row.choices and row.label is not None]
    if not rows:
        return None
    scores = score_labels(loaded, rows, batch_size=BATCH_SIZE)
    picks = [row.choices[score.best("raw")] for row, score in zip(rows, scores, strict=True)]
    return metrics.classification_scores([row.label or "" for row in rows], picks)["weighted_f1"]


def _score_encoder(loaded: LoadedModel, rows: Sequence[Example], max_length: int) -> float | None:
    head = loaded.head
    assert head is not None
    metric = HEAD_METRICS[head.kind]
    labelled = head.kind == "extraction"
    rows = [row for row in rows if labelled or row.label is not None or row.labels is not None]
    rows = [row for row in rows if refuse_encoder(head, EvalTask("held-out", metric, (row,))) is None]
    if not rows:
        return None
    task = EvalTask("held-out", metric, tuple(rows))
    answers = ask_encoder(loaded, task, batch_size=BATCH_SIZE, max_length=max_length, on_rows=lambda count: None)
    if metric == "answer_f1":
        pairs = zip(rows, answers.texts, strict=True)
        return sum(metrics.answer_f1(row.answer, text) for row, text in pairs) / len(rows)
    if metric == "micro_f1":
        return metrics.label_set_scores([reference_labels(row) for row in rows], answers.labels)["micro_f1"]
    return metrics.classification_scores([row.label or "" for row in rows], answers.texts)["weighted_f1"]
