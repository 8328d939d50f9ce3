"""Turns the columns of a row into messages: one small function per common shape of training data."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from finetune.errors import InputError, Unusable
from finetune.prepare.rows.columns import Values, is_null, list_names, optional_text, required_text
from finetune.prepare.rows.prompts import Prompt
from finetune.recipe import TaskRecipe
from finetune.records import ROLES, TASKS, Message, Task

DEFAULT_INSTRUCTION = "Which label fits this text?"
SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
MAX_LABELS = 100  # more distinct values are text or numbers, not labels
# Other common names of columns, so that an error can suggest what to map.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "text": ("sentence", "content", "review", "tweet", "headline", "body", "document"),
    "label": ("sentiment", "category", "class", "target", "labels"),
    "question": ("query", "problem", "ask"),
    "answer": ("response", "reply", "output", "completion", "solution"),
    "completion": ("response", "answer", "output"),
    "output": ("response", "answer", "completion"),
    "conversations": ("conversation", "dialog", "dialogue", "turns"),
    "messages": ("conversation", "chat", "dialogue"),
}


@dataclass(frozen=True, slots=True)
class Draft:
    """The result of applying a shape to a row."""

    messages: tuple[Message, ...]
    task: Task
    label: str | None = None
    choices: tuple[str, ...] = ()
    context: str = ""  # the text that the question is about; other questions may share it


@dataclass(frozen=True)
class Shape:
    """The required and optional columns of a row, and how they become messages. `build` raises `Unusable`."""

    name: str
    needs: tuple[str, ...]
    build: Callable[[Values], Draft]
    optional: tuple[str, ...] = ()


# --- conversations ----------------------------------------------------------------------------------------------------


def build_messages(columns: Values) -> Draft:
    """Rows with `messages`; rows of a corpus keep their task, label and choices."""
    messages = _turns(columns["messages"], "messages", "role", "content", {role: role for role in ROLES})
    task = columns.get("task")
    if task == "text" and [message.role for message in messages] == ["assistant"]:
        return Draft(messages, "text")
    _check_turns(messages, "messages")
    choices = columns.get("choices")
    label = optional_text(columns, "label") or None
    if task == "classification" and isinstance(choices, list) and label in choices:
        return Draft(messages, "classification", label, tuple(map(str, choices)))
    kept: Task = task if task in TASKS and task not in {"classification", "text"} else "chat"
    return Draft(messages, kept)


def build_sharegpt(columns: Values) -> Draft:
    """ShareGPT rows: `conversations` of `from` and `value`."""
    messages = _turns(columns["conversations"], "conversations", "from", "value", SHAREGPT_ROLES)
    _check_turns(messages, "conversations")
    return Draft(messages, "chat")


def build_prompt(columns: Values) -> Draft:
    """`prompt` and `completion`, each a text or a list of messages."""
    known = {role: role for role in ROLES}
    parts: list[Message] = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        if isinstance(columns[name], list):
            parts += _turns(columns[name], name, "role", "content", known)
        else:
            parts.append(Message(role, required_text(columns, name)))  # type: ignore[arg-type]
    _check_turns(parts, "prompt and completion")
    return Draft(tuple(parts), "chat")


def build_alpaca(columns: Values) -> Draft:
    """Alpaca rows: `instruction`, optionally `input`, and `output`."""
    question = "\n\n".join(
        part for part in (required_text(columns, "instruction"), optional_text(columns, "input")) if part
    )
    return Draft(_exchange(question, required_text(columns, "output")), "chat")


def build_qa(columns: Values) -> Draft:
    """`question` and `answer`, optionally with the `context` to answer from."""
    context = optional_text(columns, "context")
    question = "\n\n".join(part for part in (context, required_text(columns, "question")) if part)
    return Draft(_exchange(question, required_text(columns, "answer")), "qa", context=context)


def build_extractive(columns: Values) -> Draft:
    """SQuAD rows: a `question`, `answers` that are spans of the `context`; the first answer is taken."""
    answers = columns["answers"]
    texts = answers.get("text") if isinstance(answers, Mapping) else answers
    first = texts[0] if isinstance(texts, list) and texts else None
    answer = {"answer": first.get("text") if isinstance(first, Mapping) else first}
    context = optional_text(columns, "context")
    question = "\n\n".join(part for part in (context, required_text(columns, "question")) if part)
    return Draft(_exchange(question, required_text(answer, "answer")), "qa", context=context)


def build_text(columns: Values) -> Draft:
    """Plain `text`, for continued pretraining."""
    return Draft((Message("assistant", required_text(columns, "text")),), "text")


def _exchange(question: str, answer: str, system: str | None = None) -> tuple[Message, ...]:
    opening = (Message("system", system),) if system else ()
    return *opening, Message("user", question), Message("assistant", answer)


def _turns(value: object, name: str, role_key: str, text_key: str, roles: Mapping[str, str]) -> tuple[Message, ...]:
    if is_null(value) or not isinstance(value, list) or not value:
        raise Unusable("no_messages", f"the column {name!r} is not a list of turns, or is empty")
    turns = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, Mapping):
            raise Unusable("bad_turn", f"turn {number} of {name!r} is not an object with {role_key!r} and {text_key!r}")
        role = roles.get(str(turn.get(role_key)))
        if role is None:
            raise Unusable(
                "bad_role", f"turn {number} of {name!r} has an unknown {role_key!r}. Known: {', '.join(roles)}"
            )
        answer = "answer" if role == "assistant" else "question"
        try:
            turns.append(Message(role, required_text({answer: turn.get(text_key)}, answer)))  # type: ignore[arg-type]
        except Unusable as error:
            raise Unusable(error.reason, f"turn {number} of {name!r}: {text_key!r} is empty or not text") from None
    return tuple(turns)


def _check_turns(messages: Sequence[Message], name: str) -> None:
    """Require an optional system message, then alternating user and assistant turns, as all chat templates render."""
    roles = [message.role for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = ["user", "assistant"] * (len(spoken) // 2)
    if not spoken or spoken != expected:
        raise Unusable(
            "bad_turns",
            f"the turns of {name} are {', '.join(roles)}. They must alternate between user and assistant, after "
            "at most one system message",
        )


# --- classification and the prompts of a domain -----------------------------------------------------------------------


def classification(choices: Sequence[str], instruction: str | None) -> Shape:
    """`text` and `label` with a plain question."""
    question = f"{instruction or DEFAULT_INSTRUCTION}\nAnswer with one of: {', '.join(choices)}."
    return Shape("classification", ("text", "label"), partial(_build_classification, tuple(choices), question))


def _build_classification(choices: tuple[str, ...], question: str, columns: Values) -> Draft:
    label = required_text(columns, "label")
    return Draft(_exchange(required_text(columns, "text"), label, question), "classification", label, choices)


def domain_shape(
    name: str, recipe: TaskRecipe, prompt: Prompt, labels: Mapping[str, str], template: Prompt | None = None
) -> Shape:
    """A task of a domain: the columns of its prompt, and a `label` or an `answer`, which `template` may build."""
    known = {choice.casefold(): choice for choice in recipe.choices} | {
        value.casefold(): answer for value, answer in labels.items()
    }
    target = "label" if recipe.choices else "answer"
    needs = prompt.columns | (template.columns if template else {target})
    return Shape(name, tuple(sorted(needs)), partial(_build_task, recipe, prompt, known, template))


def _build_task(
    recipe: TaskRecipe, prompt: Prompt, known: Mapping[str, str], template: Prompt | None, columns: Values
) -> Draft:
    choices = recipe.choices
    target = "label" if choices else "answer"
    if template is not None:
        text = template.render({column: required_text(columns, column) for column in template.columns}, choices)
        columns = {**columns, target: text}
    answer = required_text(columns, target)
    if choices:
        if answer.casefold() not in known:
            raise Unusable("unknown_label", f"the label is not one of {', '.join(choices)}. Correct the row")
        answer = known[answer.casefold()]
    question = prompt.render({column: required_text(columns, column) for column in prompt.columns}, choices)
    context = optional_text(columns, "context") if "context" in prompt.columns else ""
    label = answer if choices else None
    return Draft(_exchange(question, answer, recipe.system), recipe.task, label, choices, context)


def distinct_labels(labels: Iterable[str], source: str) -> tuple[str, ...]:
    """The labels of a source, sorted.

    Raises:
        InputError: fewer than two or too many to be labels.
    """
    found = sorted(set(labels))
    if not 2 <= len(found) <= MAX_LABELS:
        raise InputError(
            f"{source}: the column 'label' has {len(found)} distinct values; classification needs 2 to {MAX_LABELS}. "
            "If the answers are free text, use: --map question=text --map answer=label"
        )
    return tuple(found)


# --- choosing a shape -------------------------------------------------------------------------------------------------

TEXT_AND_LABEL = Shape("classification", ("text", "label"), build_text)  # a placeholder until the labels are known
SHAPES: tuple[Shape, ...] = (
    Shape("messages", ("messages",), build_messages),
    Shape("sharegpt", ("conversations",), build_sharegpt),
    Shape("prompt-completion", ("prompt", "completion"), build_prompt),
    Shape("alpaca", ("instruction", "output"), build_alpaca, ("input",)),
    Shape("question-answer", ("question", "answer"), build_qa, ("context",)),
    Shape("extractive question-answer", ("question", "answers"), build_extractive, ("context",)),
    TEXT_AND_LABEL,
    Shape("text", ("text",), build_text),
)
NAMES = frozenset(name for shape in SHAPES for name in (*shape.needs, *shape.optional)) | {"group"}


def choose_shape(columns: Collection[str], mapped: Collection[str] = ()) -> Shape:
    """The first shape that fits the columns and uses all mapped ones.

    Raises:
        Unusable: none fits; names the columns and the closest shape.
    """
    wanted = set(mapped) - {"group"}
    for shape in SHAPES:
        if set(shape.needs) <= set(columns) and wanted <= {*shape.needs, *shape.optional}:
            return shape
    raise Unusable("unknown_columns", _nearest(columns))


def _nearest(columns: Collection[str]) -> str:
    guesses = {
        shape.name: {need: _guess(need, columns) for need in shape.needs if need not in columns} for shape in SHAPES
    }
    best = max(SHAPES, key=lambda shape: _likeness(shape, guesses[shape.name]))
    missing = guesses[best.name]
    maps = " ".join(f"--map {need}={guess or 'COLUMN'}" for need, guess in missing.items())
    return (
        f"the columns {list_names(columns)} fit no known format. The closest is {' + '.join(best.needs)}, which lacks "
        f"{', '.join(missing) or 'nothing'}. Map them with {maps or '--map NAME=COLUMN'}, or rename them"
    )


def _likeness(shape: Shape, guesses: Mapping[str, str | None]) -> int:
    """The number of columns of a shape that exist, possibly under another name, minus the number of missing ones."""
    absent = sum(guess is None for guess in guesses.values())
    return len(shape.needs) - 2 * absent


def _guess(need: str, columns: Collection[str]) -> str | None:
    for synonym in SYNONYMS.get(need, ()):
        if synonym in columns:
            return synonym
    near = difflib.get_close_matches(need, columns, n=1, cutoff=0.8)
    return near[0] if near else None
