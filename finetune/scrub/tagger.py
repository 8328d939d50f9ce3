"""Taggers: what finds names, places and organisations, which no pattern finds.

A tagger takes a batch of texts and returns the spans of each. There are two: this project's own, and any model of spaCy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.artifacts import sha256_of
from finetune.errors import InputError
from finetune.scrub.own_tagger import OwnTagger, own_folder
from finetune.scrub.recogniser import GUESSED
from finetune.scrub.span import Span

if TYPE_CHECKING:
    from spacy.language import Language

Tagger = Callable[[Sequence[str]], list[list[Span]]]

BATCH = 64  # texts that spaCy reads together
# What the labels of spaCy's models (OntoNotes, and WikiNER for most languages) are called here.
SPACY_LABELS = {
    **dict.fromkeys(("PERSON", "PER"), "NAME"),
    **dict.fromkeys(("GPE", "LOC", "FAC"), "LOCATION"),
    "ORG": "ORGANISATION",
}


def kinds_of(name: str) -> tuple[str, ...]:
    """The kinds that a tagger finds, without loading it."""
    return ("NAME", "LOCATION", "ORGANISATION" if own_folder(name) is None else "ADDRESS")


def fingerprint_tagger(name: str) -> str:
    """What changes when a tagger does: a checksum of its folder or the version of its package; "" if it is missing."""
    folder = own_folder(name) or Path(name)
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        parts = [f"{path.relative_to(folder).as_posix()} {sha256_of(path)}" for path in files]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    try:
        return version(name)
    except (PackageNotFoundError, ValueError):
        return ""


@lru_cache(maxsize=1)
def load_tagger(name: str) -> Tagger:
    """A tagger by name: `own`, the folder of one, the package of a spaCy model, or its folder.

    Raises:
        InputError: the tagger, the model or a library is not installed, or the model finds no names.
    """
    folder = own_folder(name)
    if folder is not None:
        return OwnTagger(folder)
    if os.sep in name and not Path(name).is_dir():
        raise InputError(
            f"There is no folder {name} with a tagger. Give the folder of one, own, or the package of a spaCy model, such as "
            "en_core_web_sm"
        )
    return _load_spacy(name)


def _load_spacy(name: str) -> Tagger:
    try:
        import spacy
    except ImportError:
        raise InputError(
            f"The tagger {name!r} needs spaCy. Install it with: pip install 'slmtune[privacy]', or leave the tagger out"
        ) from None
    try:
        model = spacy.load(name, exclude=["parser", "lemmatizer", "attribute_ruler", "senter"])
    except (OSError, ValueError):
        raise InputError(
            f"There is no spaCy model {name!r} here, nor a tagger of slmtune. Name the package of an installed model, such as "
            "en_core_web_sm, or its folder"
        ) from None
    if "ner" not in model.pipe_names:
        raise InputError(f"The spaCy model {name!r} finds no names: it has no component 'ner'. Name another model")
    return _Spacy(model)


class _Spacy:
    def __init__(self, model: Language) -> None:
        self._model = model

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        limit = self._model.max_length
        documents = self._model.pipe((text[:limit] for text in texts), batch_size=BATCH)
        return [
            [
                Span(kind, each.start_char, each.end_char, GUESSED, "spacy", f"spaCy's {each.label_}")
                for each in document.ents
                if (kind := SPACY_LABELS.get(each.label_))
            ]
            for document in documents
        ]
