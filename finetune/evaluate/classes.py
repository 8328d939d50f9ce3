"""How well each label of a task is recognised."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from finetune.evaluate.details import ClassScore


def class_scores(
    choices: Sequence[str], expected: Sequence[Collection[str]], given: Sequence[Collection[str]]
) -> tuple[ClassScore, ...]:
    """One line per label: the choices in their order, then whatever else was expected or given.

    Args:
        choices: the labels that a row can have, as far as they are known.
        expected: the labels of each row, one or any number of them.
        given: the labels that a contestant gave to each row.
    """
    others = sorted({label for row in (*expected, *given) for label in row})
    return tuple(_score(label, expected, given) for label in dict.fromkeys([*choices, *others]))


def _score(label: str, truth: Sequence[Collection[str]], answers: Sequence[Collection[str]]) -> ClassScore:
    pairs = [(label in one, label in other) for one, other in zip(truth, answers, strict=True)]
    expected, given = (sum(column) for column in zip(*pairs, strict=True))
    right = sum(one and other for one, other in pairs)
    return ClassScore(
        label,
        expected,
        given,
        right,
        right / given if given else None,
        right / expected if expected else None,
        2 * right / (expected + given) if expected + given else None,
    )
