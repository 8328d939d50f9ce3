"""Reads answers that are not one text: several accepted ones, spans of a text, labels, and the number of a choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from finetune.errors import Unusable
from finetune.prepare.rows.columns import Values, has_value, parse_json, required_text
from finetune.records import NO_LABEL, SEPARATOR


@dataclass(frozen=True, slots=True)
class Choices:
    """The letters and texts of the choices, whether they are numbers, and the names of what else they come with."""

    listed: tuple[tuple[str, str], ...]
    numeric: bool
    unread: frozenset[str]


def first_answer(value: object, name: str) -> tuple[object, list[str]]:
    """The first of several accepted answers, also of spans as in SQuAD, and the names of what else there is."""
    unread = []
    if isinstance(value, Mapping) and "text" in value:
        unread += [f"{name}.{key}" for key in value if key != "text" and has_value(value[key])]
        value = value["text"]
    if isinstance(value, list):
        first = value[0] if value else None
        if any(other != first for other in value):
            unread.append(f"{name} (all but the first)")
        value, others = first_answer(first, name) if isinstance(first, Mapping) else (first, [])
        unread += others
    return value, unread


def list_labels(value: object) -> list[str] | None:
    """The labels in a list, also in one that is written as JSON; None if the value is no list.

    Raises:
        Unusable: one of them is null, empty or not text.
    """
    values = parse_json(value)
    if not isinstance(values, list):
        return None
    return [required_text({"label": each}, "label") for each in values]


def write_labels(labels: Sequence[str], choices: Sequence[str]) -> str:
    """Several labels as an answer.

    Raises:
        Unusable: there is no label, and one of the `choices` is called none.
    """
    if not labels and NO_LABEL in map(str.casefold, choices):
        raise Unusable(
            "no_label", f"the row has no label, and one of the labels is called {NO_LABEL}. Give the row that label"
        )
    return SEPARATOR.join(labels) or NO_LABEL


def read_choices(value: object) -> Choices:
    """The choices of a question: a list of texts, an object of letters and texts, or lists of texts and labels.

    Raises:
        Unusable: they have another form, or there are fewer than two.
    """
    value = parse_json(value)
    letters: Iterable[object] = ascii_uppercase
    extra: set[str] = set()
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        extra = value.keys() - {"text", "label"}
        letters, value = value.get("label") or letters, value["text"]
    elif isinstance(value, Mapping):
        letters, value = list(value), list(value.values())
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase):
        raise Unusable(
            "bad_choices",
            "the choices of the question are not a list of two or more texts. Write them as one, or do without them: "
            "--ignore choices",
        )
    if all(isinstance(choice, Mapping) and {"label", "text"} <= choice.keys() for choice in value):
        extra = set().union(*value) - {"text", "label"}
        letters, value = [choice["label"] for choice in value], [choice["text"] for choice in value]
    texts = [required_text({"choices": text}, "choices").strip() for text in value]
    listed = tuple((str(letter), text) for letter, text in zip(letters, texts, strict=False))
    numeric = not all(isinstance(text, str) for text in value)
    return Choices(listed, numeric, frozenset(f"choices.{name}" for name in extra))


def pick_choice(choices: Choices, answer: object, first: int) -> str:
    """The text of the right choice, which `answer` names by its text, its letter or its number from `first`.

    A number beside choices that are texts is the number of one, also if one of them has the same text.

    Raises:
        Unusable: it names none.
    """
    text = required_text({"answer": answer}, "answer").strip()
    by_text = {choice: choice for _, choice in choices.listed}
    by_letter = {letter.casefold(): choice for letter, choice in choices.listed}
    by_number = {str(number): choice for number, (_, choice) in enumerate(choices.listed, first)}
    is_number = isinstance(answer, int | float) and not choices.numeric
    known = by_text | by_number | by_letter if is_number else by_number | by_letter | by_text  # the last one wins
    picked = known.get(text) or known.get(text.casefold().strip("(). "))
    if picked is None:
        raise Unusable(
            "bad_choice",
            "the answer is none of the choices: neither the text, the letter nor the number of one. Correct it",
        )
    return picked


def count_from(rows: Iterable[Values]) -> int:
    """The number of the first choice, 0 or 1: 1 if no answer is 0 and one is the number of choices."""
    first = 0
    for row in rows:
        answer, choices = row.get("answer"), row.get("choices")
        number = str(answer).strip() if isinstance(answer, str | int) and not isinstance(answer, bool) else ""
        if number == "0":
            return 0
        if isinstance(choices, list) and number == str(len(choices)):
            first = 1
    return first
