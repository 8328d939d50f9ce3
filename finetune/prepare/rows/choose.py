"""Chooses the shape of rows by their columns, or says which columns to map."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from functools import partial

from finetune.errors import Unusable
from finetune.prepare.rows.columns import list_names
from finetune.prepare.rows.labelled import LABELLED
from finetune.prepare.rows.meaning import LABELS, PAIRS, RATINGS, TEXTS
from finetune.prepare.rows.preference import ASKED, RATED, build_pair, build_rated
from finetune.prepare.rows.shapes import (
    ALIASES,
    Shape,
    build_alpaca,
    build_choice,
    build_corpus_row,
    build_messages,
    build_prompt,
    build_qa,
    build_text,
)

# Other common names of columns, so that an error can suggest what to map.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "text": ("sentence", "content", "review", "tweet", "headline", "body", "document"),
    "label": LABELS,
    "question": ("query", "problem", "ask", "q", "human", "user", "source", "input"),
    "answer": ("response", "reply", "output", "completion", "solution", "answerkey", "a", "assistant", "target"),
    "completion": ("response", "answer", "output"),
    "output": ("response", "answer", "completion"),
    "conversations": ("conversation", "dialog", "dialogue", "turns"),
    "messages": ("conversation", "chat", "dialogue"),
}
# Placeholders until the classes, and the number of the first choice, are known: this one and LABELLED.
MULTIPLE_CHOICE = "multiple choice"
NOT_OF_A_SHAPE = frozenset({"group", "split"})  # columns that say where a row goes


def known_shapes(ignored: Collection[str] = ()) -> tuple[Shape, ...]:
    """The shapes in the order in which they are tried; `ignored` are columns and keys of turns to do without."""
    earlier = ("system", "history")
    chats = (
        Shape("messages", ("messages",), partial(build_messages, "messages", ignored), ("system", "task", "tools")),
        Shape("sharegpt", ("conversations",), partial(build_messages, "conversations", ignored), ("system", "tools")),
        Shape(
            "prompt-completion", ("prompt", "completion"), partial(build_prompt, ignored), (*earlier, "tools"), RATINGS
        ),
        Shape("alpaca", ("instruction", "output"), partial(build_alpaca, ignored), ("input", "context", *earlier)),
    )
    corpus = ("messages", "task", "label", "choices")
    return (
        Shape("corpus", corpus, partial(build_corpus_row, ignored), ("tools", "rejected", "labels", "context")),
        *_preferences(ignored),
        *(_with_ratings(chat, ignored) for chat in chats),
        *chats,
        Shape(
            MULTIPLE_CHOICE, ("question", "choices", "answer"), partial(build_choice, 0, ignored), ("context", *earlier)
        ),
        Shape("question-answer", ("question", "answer"), partial(build_qa, "answer", ignored), ("context", *earlier)),
        Shape(
            "extractive question-answer",
            ("question", "answers"),
            partial(build_qa, "answers", ignored),
            ("context", *earlier),
        ),
        *LABELLED,
        Shape("text", ("text",), build_text, forbids=TEXTS | frozenset(LABELS)),
    )


def _preferences(ignored: Collection[str]) -> Iterator[Shape]:
    """Pairs of answers; without the rejected ones, the chosen ones are ordinary answers."""
    if "rejected" in ignored:
        yield Shape("chosen answers", ("chosen",), partial(build_pair, "chosen", ignored), ASKED)
    else:
        yield Shape("preference pairs", ("chosen", "rejected"), partial(build_pair, "chosen", ignored), ASKED)
        yield Shape("preference pairs", ("messages", "rejected"), partial(build_pair, "messages", ignored), ASKED)


def _with_ratings(shape: Shape, ignored: Collection[str]) -> Shape:
    build = partial(build_rated, shape.build, ignored)
    return Shape(f"{shape.name} with ratings", (*shape.needs, RATED), build, shape.optional, shape.forbids)


NAMES = frozenset(name for shape in known_shapes() for name in shape.columns) | NOT_OF_A_SHAPE


def choose_shape(columns: Collection[str], mapped: Collection[str] = (), ignored: Collection[str] = ()) -> Shape:
    """The first shape that fits the columns and uses all mapped ones.

    Raises:
        Unusable: none fits; names the columns and the closest shape.
    """
    required = set(mapped) - NOT_OF_A_SHAPE
    shapes = known_shapes(ignored)
    for shape in shapes:
        if set(shape.needs) <= named(columns) and required <= shape.columns:
            return shape
    raise Unusable("unknown_columns", _preference(columns) or _nearest(columns, shapes))


def named(columns: Collection[str]) -> set[str]:
    """The columns, also under the names that their aliases are read as."""
    return {*columns, *(name for name, aliases in ALIASES.items() if not set(aliases).isdisjoint(columns))}


def _preference(columns: Collection[str]) -> str | None:
    pair = sorted(PAIRS & set(columns))
    if not pair:
        return None
    return (
        f"the columns {list_names(columns)} look like one half of preference pairs, which have the columns chosen and "
        "rejected. Map the other half with --map chosen=COLUMN or --map rejected=COLUMN; to learn only the answers in chosen, "
        "pass --ignore rejected"
    )


def _nearest(columns: Collection[str], shapes: Collection[Shape]) -> str:
    guesses = {
        shape.name: {need: _guess(need, columns) for need in shape.needs if need not in columns} for shape in shapes
    }
    best = max(shapes, key=lambda shape: _likeness(shape, guesses[shape.name]))
    missing = guesses[best.name]
    if len(missing) == len(best.needs) and not any(missing.values()):
        return (
            f"the columns {list_names(columns)} fit no known format, and no name is like one that slmtune knows. Map "
            "them, for example with --map question=COLUMN --map answer=COLUMN or --map text=COLUMN --map label=COLUMN; if "
            "they are the first row, give the file a line with names"
        )
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
