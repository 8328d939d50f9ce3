"""What a request for labels asks a model that writes: the labels and the instruction that it was trained with, or its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from finetune.errors import InputError
from finetune.recipe import load_domain
from finetune.recipe.domain import domain_names
from finetune.scoring.label_tasks import LabelTask, domain_label_tasks
from finetune.serve.api.schema import ClassifyRequest
from finetune.serve.engine.job import ServedModel

GIVE_LABELS = (
    'Give the labels and, if the model was trained with one, the instruction: "labels": ["a", "b"], "instruction": "…"'
)


def task_of(body: ClassifyRequest, served: ServedModel) -> LabelTask:
    """The task of a request: its own labels, or a task that the model was trained on, or another one of its domain.

    Raises:
        InputError: neither has labels, or it is not clear which task is meant.
    """
    if body.labels is not None:
        return LabelTask("labels", tuple(body.labels), body.instruction)
    own = _with_one_label(served.label_tasks)
    if body.task is None and len(own) == 1:
        return _require_text(own[0])
    domain = load_domain(served.domain) if served.domain in domain_names() else None
    others = _with_one_label(domain_label_tasks(domain)) if domain else []
    known = {task.name: task for task in (*others, *own)}
    if not known:
        raise InputError(f"The labels of this model are not known. {GIVE_LABELS}")
    usual = own or [task for task in others if domain and domain.recipe.tasks[task.name].default]
    name = body.task or (usual[0].name if len(usual) == 1 else "")
    if name not in known:
        problem = "no task of that name" if body.task is not None else "no task, or several"
        raise InputError(
            f"This model has {problem} with one label per text. Its tasks: {', '.join(known)}. {GIVE_LABELS}"
        )
    return _require_text(known[name])


def usual_labels(served: ServedModel) -> list[str] | None:
    """The labels of the one task about single texts that a model was trained on; None if there is no such task."""
    own = _with_one_label(served.label_tasks)
    return list(own[0].labels) if len(own) == 1 and own[0].asks_about_text else None


def _with_one_label(tasks: Iterable[LabelTask]) -> Sequence[LabelTask]:
    return [task for task in tasks if not task.multi_label]


def _require_text(task: LabelTask) -> LabelTask:
    if not task.asks_about_text:
        raise InputError(f"The rows of the task {task.name} are more than a text. Ask with POST /v1/chat/completions")
    return task
