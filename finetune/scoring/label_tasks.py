"""The questions with fixed answers that a model was trained on: read from its rows, kept in its manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from finetune.prepare.rows.prompts import Prompt, load_prompt
from finetune.recipe import Domain
from finetune.records import Example, Message

KEY = "label_tasks"  # in the manifest of an adapter or a merged model
TEXT = "{{ text }}"


@dataclass(frozen=True)
class LabelTask:
    """A question about texts with a fixed list of answers.

    `instruction` is the system message and `prompt` a Jinja template for the question. `source` names the rows of a corpus
    that ask it.
    """

    name: str
    labels: tuple[str, ...]
    instruction: str | None = None
    prompt: str = TEXT
    multi_label: bool = False
    source: str | None = None

    @property
    def asks_about_text(self) -> bool:
        """Whether a single text is all that the question needs."""
        return Prompt(self.name, self.prompt).columns <= {"text"}

    def ask(self, text: str) -> list[Message]:
        """The question about a text."""
        system = [Message("system", self.instruction)] if self.instruction else []
        return [*system, Message("user", Prompt(self.name, self.prompt).render({"text": text}, self.labels))]


def read_label_tasks(rows: Iterable[Example], sources: Iterable[Mapping[str, Any]]) -> list[LabelTask]:
    """The label tasks of rows of a corpus, whose manifest describes its `sources`.

    A source counts only if all of its rows have the same choices and the same system message: what differs from row to row
    is part of the rows, which no manifest may contain.
    """
    asked: dict[str, LabelTask | None] = {}
    described = {source["id"]: source for source in sources}
    for row in rows:
        facts = described.get(row.source, {})
        task = _task_of(row, facts.get("task") or row.source, facts.get("prompt") or TEXT)
        asked[row.source] = task if asked.setdefault(row.source, task) == task else None
    distinct: dict[tuple[object, ...], LabelTask] = {}
    for task in asked.values():
        if task is not None:
            distinct.setdefault((task.labels, task.instruction, task.prompt, task.multi_label), task)
    return list(distinct.values())


def domain_label_tasks(domain: Domain) -> Iterator[LabelTask]:
    """The label tasks of a domain's recipe, those that are read by default first."""
    for name, task in sorted(domain.recipe.tasks.items(), key=lambda item: not item[1].default):
        if task.choices:
            prompt = load_prompt(domain, name).text
            yield LabelTask(name, task.choices, task.system, prompt, task.multi_label)


def describe_label_tasks(tasks: Iterable[LabelTask]) -> dict[str, Any]:
    """The distinct ones of the tasks for a manifest; `label_tasks_of` reads them."""
    described = [asdict(task) | {"labels": list(task.labels)} for task in dict.fromkeys(tasks)]
    return {KEY: described} if described else {}


def label_tasks_of(manifest: Mapping[str, Any]) -> tuple[LabelTask, ...]:
    """The label tasks in the manifest of an adapter or a merged model; none if it was written before they were kept."""
    return tuple(LabelTask(**{**task, "labels": tuple(task["labels"])}) for task in manifest.get(KEY, ()))


def _task_of(row: Example, name: str, prompt: str) -> LabelTask | None:
    if not row.choices:
        return None
    system = next((turn.content for turn in row.prompt if turn.role == "system"), None)
    return LabelTask(name, row.choices, system, prompt, row.labels is not None, row.source)
