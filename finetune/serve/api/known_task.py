"""What a request for labels asks a model that writes: the labels and the instruction that it was trained with, or its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from finetune.errors import InputError
from finetune.prepare.rows.prompts import Prompt, load_prompt
from finetune.recipe import load_domain
from finetune.recipe.domain import domain_names
from finetune.records import Message
from finetune.serve.api.schema import ClassifyRequest

GIVE_LABELS = (
    'Give the labels and, if the model was trained with one, the instruction: "labels": ["a", "b"], "instruction": "…"'
)
TEXT = Prompt("text", "{{ text }}")


@dataclass(frozen=True)
class LabelTask:
    """A question with a fixed list of answers."""

    labels: tuple[str, ...]
    instruction: str | None
    prompt: Prompt = TEXT

    def ask(self, text: str) -> list[Message]:
        """The question about a text."""
        system = [Message("system", self.instruction)] if self.instruction else []
        return [*system, Message("user", self.prompt.render({"text": text}, self.labels))]


def task_of(body: ClassifyRequest, domain: str | None) -> LabelTask:
    """The task of a request: its own labels, or those of the domain on which the model was trained.

    Raises:
        InputError: neither has labels, or it is not clear which task of the domain is meant.
    """
    if body.labels is not None:
        return LabelTask(tuple(body.labels), body.instruction)
    if domain not in domain_names():
        raise InputError(f"The labels of this model are not known. {GIVE_LABELS}")
    recipe = load_domain(domain)
    tasks = {name: task for name, task in recipe.recipe.tasks.items() if task.choices and not task.multi_label}
    usual = [name for name, task in tasks.items() if task.default]
    name = body.task or (usual[0] if len(usual) == 1 else "")
    if name not in tasks:
        raise InputError(f"{_describe(body.task, domain, tasks)} {GIVE_LABELS}")
    prompt = load_prompt(recipe, name)
    if not prompt.columns <= {"text"}:
        raise InputError(f"The rows of the task {name} are more than a text. Ask with POST /v1/chat/completions")
    return LabelTask(tasks[name].choices, tasks[name].system, prompt)


def _describe(task: str | None, domain: str, tasks: Iterable[str]) -> str:
    problem = "no task of that name" if task is not None else "no task, or several"
    return f"{domain} has {problem} with one label per text. Its tasks: {', '.join(tasks) or 'none'}."
