"""Turns the columns of a row into messages: one small function per common shape of training data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from finetune.errors import Unusable
from finetune.prepare.rows.answers import first_answer, list_labels, pick_choice, read_choices, write_labels
from finetune.prepare.rows.columns import Values, has_value, optional_text, required_text
from finetune.prepare.rows.draft import Draft
from finetune.prepare.rows.meaning import CHATS, TEXTS
from finetune.prepare.rows.preference import RATED, build_pair, build_rated
from finetune.prepare.rows.prompts import Prompt
from finetune.prepare.rows.turns import Turns, check_turns
from finetune.recipe import TaskRecipe
from finetune.records import TASKS, Message, Role, Task, TextMetric, UnusedKind

PROMPT_ROLES: Mapping[str, Role] = {"prompt": "user", "completion": "assistant"}
SECOND = "text_pair"  # the column of the second of two texts, also in the prompts of a domain
MARKED = frozenset({"classification", "text", "preference"})  # tasks of rows that have more than messages
# Other names that are read as these columns. Names that only an error suggests are in rows/choose.py.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "system": ("system_prompt", "system_message"),
    "context": ("passage", "paragraph", "article"),
    "choices": ("options",),
    "tools": ("functions",),
    "chosen": ("chosen_response", "preferred_output"),
    "rejected": ("rejected_response", "non_preferred_output"),
}


def with_aliases(names: Iterable[str]) -> frozenset[str]:
    """The names in lower case, and the other names that are read as these."""
    plain = {name.strip().lower() for name in names}
    return frozenset(plain).union(*(ALIASES.get(name, ()) for name in plain))


@dataclass(frozen=True)
class Shape:
    """The required and optional columns of a row, and how they become messages. `build` raises `Unusable`.

    Columns of `forbids` change what a row means and must not be left out. `metrics` score generated answers. `prompt` is the
    template of the questions, unless these are a text as it is.
    """

    name: str
    needs: tuple[str, ...]
    build: Callable[[Values], Draft]
    optional: tuple[str, ...] = ()
    forbids: frozenset[str] = CHATS
    metrics: tuple[TextMetric, ...] = ()
    prompt: str | None = None

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        return frozenset(self.needs) | frozenset(self.optional)


# --- conversations ----------------------------------------------------------------------------------------------------


def build_messages(name: str, ignored: Collection[str], columns: Values) -> Draft:
    """Rows whose column `name` is a list of turns, and optionally a `system` message and `tools`."""
    turns = Turns(ignored)
    messages = turns.opening(columns) + turns.read(columns[name], name)
    task = columns.get("task")
    if task == "preference":
        raise Unusable(
            "no_rejected",
            "the task of the row is preference, but it has neither a rejected answer nor a label that rates its own. Add one, "
            "or do without the column: --ignore task",
        )
    if task == "text" and [message.role for message in messages] == ["assistant"]:
        return _draft(messages, "text", turns)
    check_turns(messages, name)
    return _draft(messages, task if task in TASKS and task not in MARKED else "chat", turns, turns.tools(columns))


def build_corpus_row(ignored: Collection[str], columns: Values) -> Draft:
    """Rows of a corpus, which keep their task, label and choices, their context, and the rejected answers of pairs.

    The context of a labelled row counts as the second of two texts: a corpus does not say whether other rows share it.
    """
    label, choices = optional_text(columns, "label") or None, columns["choices"]
    if columns["task"] == "preference":
        pair = {name: columns[name] for name in ("messages", "rejected", "tools") if name in columns}
        if label is None:
            return build_pair("messages", ignored, pair)
        return build_rated(partial(build_messages, "messages", ignored), ignored, {**pair, RATED: label})
    draft, context = build_messages("messages", ignored, columns), optional_text(columns, "context")
    if not label and not choices:
        return replace(draft, context=context)
    labels = columns.get("labels")
    own = {label} if labels is None else {*labels}
    if columns["task"] != "classification" or not isinstance(choices, list) or not own <= {*choices}:
        raise Unusable("bad_label", "the columns task, label and choices are not those of a corpus. Correct the row")
    return replace(
        draft,
        task="classification",
        label=label,
        choices=tuple(map(str, choices)),
        second=context,
        labels=None if labels is None else tuple(labels),
    )


def build_prompt(ignored: Collection[str], columns: Values) -> Draft:
    """`prompt` and `completion`, each a text or a list of messages."""
    turns = Turns(ignored)
    messages = turns.opening(columns)
    for name, role in PROMPT_ROLES.items():
        if isinstance(columns[name], list):
            messages += turns.read(columns[name], name)
        else:
            messages.append(Message(role, required_text(columns, name)))
    check_turns(messages, "prompt and completion")
    return _draft(messages, "chat", turns, turns.tools(columns))


def build_alpaca(ignored: Collection[str], columns: Values) -> Draft:
    """Alpaca rows: `instruction`, `input` or both, and `output`; also Dolly's, with a `context`."""
    instruction, context, further = (optional_text(columns, name) for name in ("instruction", "context", "input"))
    if not (instruction or context or further):
        required_text(columns, "instruction")
    parts = instruction, context, further
    return _answered(ignored, columns, parts, required_text(columns, "output"), "chat", context)


def build_qa(name: str, ignored: Collection[str], columns: Values) -> Draft:
    """`question` and `answer` or `answers` (column `name`), optionally with the `context` to answer from.

    Of several answers, or of spans as in SQuAD, the first is taken.
    """
    value, others = first_answer(columns[name], name)
    context = optional_text(columns, "context")
    parts = context, required_text(columns, "question")
    return _answered(ignored, columns, parts, required_text({"answer": value}, "answer"), "qa", context, others)


def build_choice(first: int, ignored: Collection[str], columns: Values) -> Draft:
    """A `question`, its `choices` and the `answer`: the text of a choice, its letter or its number, counted from `first`.

    The choices become part of the question, and the text of the right one the answer. A row without choices is a plain
    question.
    """
    if not has_value(columns["choices"]):
        return build_qa("answer", ignored, columns)
    choices = read_choices(columns["choices"])
    answer = pick_choice(choices, columns["answer"], first)
    listed = "\n".join(f"{letter}. {text}" for letter, text in choices.listed)
    context = optional_text(columns, "context")
    parts = context, required_text(columns, "question"), listed
    return _answered(ignored, columns, parts, answer, "qa", context, choices.unread)


def build_text(columns: Values) -> Draft:
    """Plain `text`, for continued pretraining."""
    return Draft((Message("assistant", required_text(columns, "text")),), "text")


def _answered(
    ignored: Collection[str],
    columns: Values,
    parts: Iterable[str],
    answer: str,
    task: Task,
    context: str = "",
    unread: Iterable[str] = (),
) -> Draft:
    """A question in several parts and its answer, after the row's system message and earlier exchanges."""
    turns = Turns(ignored)
    messages = (*turns.opening(columns), *exchange("\n\n".join(part for part in parts if part), answer))
    if len(messages) > 2:
        check_turns(messages, "history, question and answer")
    left: list[tuple[UnusedKind, str]] = [("key of a turn", key) for key in turns.unread]
    left += [("column", name) for name in unread]
    return Draft(messages, task, context=context, unread=frozenset(left))


def _draft(messages: Sequence[Message], task: Task, turns: Turns, tools: str | None = None) -> Draft:
    return Draft(tuple(messages), task, unread=frozenset(("key of a turn", key) for key in turns.unread), tools=tools)


def exchange(question: str, answer: str, system: str | None = None) -> tuple[Message, ...]:
    """A question and its answer, after a system message."""
    opening = (Message("system", system),) if system else ()
    return *opening, Message("user", question), Message("assistant", answer)


# --- the prompts of a domain ------------------------------------------------------------------------------------------


def domain_shape(
    name: str, recipe: TaskRecipe, prompt: Prompt, labels: Mapping[str, str], template: Prompt | None = None
) -> Shape:
    """A task of a domain: the columns of its prompt, and a `label` or an `answer`, which `template` may build."""
    known = {choice.casefold(): choice for choice in recipe.choices} | {
        value.casefold(): answer for value, answer in labels.items()
    }
    target = "label" if recipe.choices else "answer"
    needs = prompt.columns | (template.columns if template else {target})
    forbids = TEXTS if recipe.choices else CHATS
    build = partial(_build_task, recipe, prompt, known, template)
    return Shape(name, tuple(sorted(needs)), build, forbids=forbids, metrics=recipe.metrics, prompt=prompt.text)


def _build_task(
    recipe: TaskRecipe, prompt: Prompt, known: Mapping[str, str], template: Prompt | None, columns: Values
) -> Draft:
    choices = recipe.choices
    target = "label" if choices else "answer"
    if template is not None:
        text = template.render({column: required_text(columns, column) for column in template.columns}, choices)
        columns = {**columns, target: text}
    labels: tuple[str, ...] | None = None
    others: list[str] = []
    if recipe.multi_label:
        labels = _pick_labels(list_labels(columns[target]) or [], known, choices)
        answer = write_labels(labels, choices)
    else:
        value, others = first_answer(columns[target], target)
        answer = required_text({target: value}, target)
        answer = _pick_labels([answer], known, choices)[0] if choices else answer
    question = prompt.render({column: required_text(columns, column) for column in prompt.columns}, choices)
    context, second = (optional_text(columns, name) if name in prompt.columns else "" for name in ("context", SECOND))
    return Draft(
        exchange(question, answer, recipe.system),
        recipe.task,
        answer if choices and labels is None else None,
        choices,
        context,
        "" if context else second,
        frozenset(("column", other) for other in others),
        labels=labels,
    )


def _pick_labels(labels: Iterable[str], known: Mapping[str, str], choices: Sequence[str]) -> tuple[str, ...]:
    folded = [label.casefold() for label in labels]
    if not known.keys() >= {*folded}:
        raise Unusable("unknown_label", f"the label is not one of {', '.join(choices)}. Correct the row")
    named = {known[label] for label in folded}
    return tuple(choice for choice in choices if choice in named)
