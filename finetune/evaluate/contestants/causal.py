"""The answers of a causal language model: the most likely choice, the likelier answer of a pair, or a text."""

from __future__ import annotations

from finetune.evaluate.answers import Answers, pick_answers, pick_labels, read_texts
from finetune.evaluate.contestants.contestant import RowsCallback
from finetune.models.load import LoadedModel
from finetune.models.structure import has_adapter
from finetune.scoring.generation import generate
from finetune.scoring.labels import score_labels
from finetune.scoring.pairs import pair_logprobs
from finetune.scoring.tasks import EvalTask


def ask_model(
    loaded: LoadedModel, task: EvalTask, *, batch_size: int, max_new_tokens: int, on_rows: RowsCallback
) -> Answers:
    """The model's answers, with its adapter if that is enabled."""
    if task.metric == "weighted_f1":
        rows = score_labels(loaded, task.examples, batch_size=batch_size, on_rows=on_rows)
        return pick_labels(task, rows, tuned=has_adapter(loaded.model))
    if task.metric == "preference_accuracy":
        pairs = pair_logprobs(loaded, task.examples, batch_size=batch_size, on_rows=on_rows)
        return pick_answers(task, pairs)
    texts = generate(loaded, task.examples, batch_size=batch_size, max_new_tokens=max_new_tokens, on_rows=on_rows)
    return read_texts(task, texts)
