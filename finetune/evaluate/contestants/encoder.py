"""The answers of an encoder with a head: labels, or what it finds in a context."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from finetune.errors import InputError
from finetune.evaluate.answers import Answers
from finetune.evaluate.contestants.contestant import RowsCallback
from finetune.models.encoder_inputs import encode
from finetune.models.heads import Head
from finetune.models.load import LoadedModel
from finetune.scoring.encoders import Labelling, predict
from finetune.scoring.tasks import HEAD_METRICS, EvalTask, reference_labels, write_labels

LABEL_METRICS = ("weighted_f1", "micro_f1", "preference_accuracy")  # of rows that no extraction can answer

log = logging.getLogger(__name__)


def ask_encoder(
    loaded: LoadedModel, task: EvalTask, *, batch_size: int, max_length: int, on_rows: RowsCallback
) -> Answers:
    """What an encoder answers; it reads as many tokens of a row as in training."""
    inputs = [encode(loaded.tokenizer, row, max_length) for row in task.examples]
    if cut := sum(one.truncated for one in inputs):
        log.warning(
            "%d of %d rows of %s are longer than %d tokens: the adapter read only a part of them, as in training.",
            *(cut, len(inputs), task.name, max_length),
        )
    contexts = [row.context for row in task.examples]
    texts, probabilities, labels = [], [], []
    for row in predict(loaded, inputs, contexts, batch_size=batch_size, on_rows=on_rows):
        if isinstance(row, Labelling):
            texts.append(write_labels(row.labels))
            probabilities.append({label: round(share, 6) for label, share in row.probabilities.items()})
            labels.append(row.labels)
        else:
            texts.append(row.text)
    return Answers(texts, probabilities, labels)


def refuse_encoder(head: Head, task: EvalTask) -> str | None:
    """Why an encoder cannot answer a task: its head predicts something else, or it does not know a label."""
    rows = task.examples
    if head.kind == "extraction":
        fits = task.metric not in LABEL_METRICS and all(row.context is not None for row in rows)
        return None if fits else "it finds answers in a context, and these rows have none"
    if HEAD_METRICS[head.kind] != task.metric:
        return f"its head is for {head.kind}"
    unknown = sorted({label for row in rows for label in reference_labels(row) if label not in head.labels})
    return f"it does not know the labels {', '.join(unknown)}" if unknown else None


def require_rows(head: Head, tasks: Sequence[EvalTask], split: str) -> None:
    """Refuse rows that an encoder cannot answer: without a label or a context, or with a label that it does not know.

    Raises:
        InputError: names how many there are, the first of them, and the labels.
    """
    rows = [row for task in tasks for row in task.examples]
    if head.kind == "extraction":
        lacking, what = [row for row in rows if row.context is None], "context, in which this adapter finds answers"
    elif head.kind == "multi-label":
        lacking, what = [row for row in rows if row.labels is None and row.label is None], "label"
    else:
        lacking, what = [row for row in rows if row.label is None], "label of their own"
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(rows)} rows of the {split} split have no {what}; the first is {lacking[0].id}. Evaluate "
            "on rows like those of the training, or on some of them with --task"
        )
    unknown = {label: row.id for row in reversed(rows) for label in reference_labels(row) if label not in head.labels}
    if unknown and head.kind != "extraction":
        raise InputError(
            f"The {split} split has labels that this adapter does not know: {', '.join(sorted(unknown))} (in row "
            f"{min(unknown.values())}). It knows {', '.join(head.labels)}. Evaluate on the corpus it was trained on, or train "
            "again"
        )
