"""Checks, before weights are loaded, that a corpus has the rows that a method learns from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from finetune.artifacts import Corpus
from finetune.errors import InputError
from finetune.recipe import AdapterRecipe
from finetune.records import Example


def check_method(corpus: Corpus, recipe: AdapterRecipe) -> None:
    """Refuse to learn answers from preferences, and preferences from other rows.

    Raises:
        InputError: names the tasks of the corpus, or that of the recipe, and the method or preparation that fits.
    """
    tasks: dict[str, int] = corpus.manifest.get("by_task", {})
    if recipe.method == "sft" and "preference" in tasks:
        raise InputError(
            f"The corpus at {corpus.path} has rows for preference tuning: an answer that is preferred and one that is not. "
            "Add --method dpo to learn the preference, or prepare the corpus again with --ignore rejected to learn the "
            "preferred answers only"
        )
    if recipe.method == "dpo" and recipe.task not in ("auto", "generation"):
        raise InputError(
            f"--method dpo compares answers of a model that writes, and --task {recipe.task} trains an encoder. "
            "Leave out --task, or train without --method dpo"
        )
    if recipe.method == "dpo" and set(tasks) != {"preference"}:
        counts = ", ".join(f"{task} {count}" for task, count in tasks.items())
        raise InputError(
            f"--method dpo learns from pairs of a chosen and a rejected answer, but the corpus at {corpus.path} has other "
            f"rows (by task: {counts}). Prepare a corpus of pairs only, or train without --method dpo"
        )


def require_pairs(examples: Iterable[Example]) -> Iterator[Example]:
    """Pass on rows that are pairs of answers.

    Raises:
        InputError: a row has a single answer, rated or not; names it by its id.
    """
    for example in examples:
        if not example.rejected:
            problem = f"one answer, rated {example.label}" if example.label else "no rejected answer"
            raise InputError(
                f"Row {example.id} has {problem}, but --method dpo learns from pairs of a chosen and a rejected answer to "
                "the same prompt (ratings of single answers would need KTO, which slmtune does not have). Prepare a corpus "
                "of pairs; or, to learn the good answers only, prepare it with --ignore rejected and train without --method"
            )
        yield example
