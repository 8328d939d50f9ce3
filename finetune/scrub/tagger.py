"""Taggers: what finds names, places and organisations, which no pattern finds.

A tagger takes a batch of texts and returns the spans of each. There are two: this project's own, and any model of spaCy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from finetune.errors import InputError
from finetune.scrub.own_tagger import OwnTagger, own_folder
from finetune.scrub.recogniser import LIKELY
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


@lru_cache(maxsize=1)
def load_tagger(name: str) -> Tagger:
    """A tagger by name: `own`, the folder of one, the package of a spaCy model, or its folder.

    Raises:
        InputError: the tagger, the model or a library is not installed, or the model finds no names.
    """
    folder = own_folder(name)
    return _load_spacy(name) if folder is None else OwnTagger(folder)


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
            f"There is no spaCy model {name!r} here. Name the package of an installed model, such as en_core_web_sm, or its "
            "folder"
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
                Span(
                    SPACY_LABELS[each.label_], each.start_char, each.end_char, LIKELY, "spacy", f"spaCy's {each.label_}"
                )
                for each in document.ents
                if each.label_ in SPACY_LABELS
            ]
            for document in documents
        ]
