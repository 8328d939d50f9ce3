"""The shapes of labelled texts: one text or a pair, with one label or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from finetune.prepare.rows.answers import list_labels, write_labels
from finetune.prepare.rows.columns import Values, required_text
from finetune.prepare.rows.draft import Draft
from finetune.prepare.rows.meaning import TEXTS
from finetune.prepare.rows.shapes import SECOND, Shape, exchange
from finetune.records import NO_LABEL, SEPARATOR

TEXT_PAIRS = (
    ("text", SECOND),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
)
BETWEEN = "\n\n"  # the two texts of a pair


@dataclass(frozen=True)
class Classes:
    """The labels of rows by their names in lower case, and whether a row may have several."""

    spellings: Mapping[str, str] = field(default_factory=dict)
    several: bool = False

    @property
    def choices(self) -> tuple[str, ...]:
        """The labels, in order."""
        return tuple(sorted(self.spellings.values()))


def labelled(texts: tuple[str, ...]) -> Shape:
    """One text or a pair of texts and their `label`; the classes are not known yet."""
    name = "classification" if len(texts) == 1 else "classification of pairs"
    prompt = BETWEEN.join(f"{{{{ {text} }}}}" for text in texts) if len(texts) > 1 else None
    return Shape(name, (*texts, "label"), partial(build_labelled, texts), forbids=TEXTS - {*texts}, prompt=prompt)


def with_classes(shape: Shape, classes: Classes, instruction: str | None) -> Shape:
    """One of `LABELLED` with its classes, and with a question that lists them."""
    texts = shape.needs[:-1]
    subject = "these two texts" if len(texts) == 2 else "this text"
    listed = (SEPARATOR if any("," in choice for choice in classes.choices) else ", ").join(classes.choices)
    if classes.several:
        question = instruction or f"Which labels fit {subject}?"
        question += f"\nAnswer with every label that fits, separated by semicolons: {listed}. If none fits: {NO_LABEL}."
    else:
        question = f"{instruction or f'Which label fits {subject}?'}\nAnswer with one of: {listed}."
    return replace(shape, build=partial(build_labelled, texts, classes=classes, question=question))


def build_labelled(texts: Sequence[str], columns: Values, classes: Classes | None = None, question: str = "") -> Draft:
    """One or two `texts`, and their `label` or labels; as long as `classes` are unknown, a list of one is a single label."""
    first, *second = (required_text(columns, name) for name in texts)
    names = list_labels(columns.get("label"))
    choices, labels = classes.choices if classes else (), None
    if classes.several if classes else names is not None and len(names) != 1:
        own = {_spell(name, classes) for name in (names if names is not None else [required_text(columns, "label")])}
        labels = tuple(choice for choice in choices or sorted(own) if choice in own)
        answer = write_labels(labels, choices)
    else:
        answer = _spell(required_text(columns if names is None else {"label": names}, "label"), classes)
    return Draft(
        exchange(BETWEEN.join((first, *second)), answer, question),
        "classification",
        answer if labels is None else None,
        choices,
        second="".join(second),
        labels=labels,
    )


def _spell(label: str, classes: Classes | None) -> str:
    return classes.spellings.get(label.casefold(), label) if classes else label


LABELLED = (*map(labelled, TEXT_PAIRS), labelled(("text",)))
