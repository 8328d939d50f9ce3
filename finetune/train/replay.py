"""General rows that are trained on beside those of the corpus, so that the model forgets less of what it could do before.

Rehearsal of older rows is the simplest remedy for forgetting (Robins, Catastrophic Forgetting, Rehearsal and Pseudorehearsal,
1995); a few per cent go a long way (Scialom et al., Fine-tuned Language Models are Continual Learners, 2022: 1 %).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.artifacts import Corpus, sha256_of
from finetune.corpus.open import open_corpus
from finetune.corpus.store import read_split, read_table
from finetune.errors import InputError
from finetune.models.heads import Head
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Message
from finetune.train.batches.mixture import Mixture, mix
from finetune.train.request import TrainRequest

# Everyday questions of many kinds with short answers, written for this project and under its licence.
BUNDLED = Path(__file__).with_name("general_rows.jsonl")


@dataclass(frozen=True)
class Replayed:
    """The general rows, and what they are known by."""

    rows: Sequence[Example]
    name: str
    fingerprint: str

    def describe(self) -> dict[str, str]:
        """The rows as a parent in the manifest of an adapter."""
        return {"name": self.name, "fingerprint": self.fingerprint}


def read_replayed(request: TrainRequest, head: Head | None) -> Replayed | None:
    """The rows that are replayed; None if none are.

    Raises:
        InputError: the run does not learn answers, the corpus has no rows that are answers, or `replay` is 0.
    """
    recipe, folder = request.recipe, request.replay_corpus
    if not recipe.replay:
        if folder is None:
            return None
        raise InputError("--replay-corpus names rows for --replay, which is 0. Add a share, such as --replay 5%")
    if head is not None or recipe.method == "dpo":
        learner = "an encoder learns classes or spans" if head is not None else "--method dpo learns from pairs"
        raise InputError(f"--replay adds general questions and answers, but {learner}. Leave it out")
    if folder is None:
        return Replayed(bundled_rows(), "bundled general questions", sha256_of(BUNDLED))
    corpus = open_corpus(folder)
    rows = read_split(corpus, "train")
    if not rows or any(row.task == "preference" for row in rows):
        raise InputError(
            f"The corpus at {folder} has no training rows that --replay could add. Prepare one of general answers"
        )
    return Replayed(rows, corpus.manifest.get("domain") or "custom", corpus.fingerprint)


def mix_rows(recipe: AdapterRecipe, corpus: Corpus, replayed: Replayed | None) -> Mixture | None:
    """The rows of each epoch; None if they are those of the corpus.

    Raises:
        InputError: the shares do not fit the sources of the corpus.
    """
    if not recipe.mix and replayed is None:
        return None
    sources = [source or "" for source in read_table(corpus, "train", ["source"])["source"].to_pylist()]
    return mix(sources, recipe.mix, len(replayed.rows) if replayed else 0, recipe.replay, recipe.seed)


def bundled_rows() -> list[Example]:
    """The bundled general questions with their answers."""
    rows = []
    for number, line in enumerate(BUNDLED.read_text("utf-8").splitlines()):
        row = json.loads(line)
        messages = (Message("user", row["question"]), Message("assistant", row["answer"]))
        rows.append(Example(f"{BUNDLED.stem}:{number}", messages, "qa", source=BUNDLED.stem))
    return rows
