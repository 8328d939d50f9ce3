"""A spaCy model finds names, places and organisations beside the recognisers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy

from finetune.errors import InputError
from finetune.scrub import Scrubber, make_rules

PHRASES = {
    "Jane Doe": "PERSON",
    "Springfield": "GPE",
    "Acme Bank": "ORG",
    "5 dollars": "MONEY",
    "Joe 4111111111111111": "PERSON",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spaCy model that knows a few phrases."""
    folder = tmp_path_factory.mktemp("models") / "phrases"
    language = spacy.blank("en")
    patterns = [{"label": label, "pattern": phrase} for phrase, label in PHRASES.items()]
    ruler: Any = language.add_pipe("entity_ruler", name="ner")
    ruler.add_patterns(patterns)
    language.to_disk(folder)
    return folder


def test_tagger_finds_what_no_pattern_finds(model: Path) -> None:
    tagged = Scrubber(make_rules(None, policy=None, find="all", otherwise="all", tagger=str(model)))
    counts: Counter[str] = Counter()
    text = "Jane Doe of Acme Bank in Springfield pays 5 dollars to Joe 4111111111111111."
    assert tagged.scrub(text, counts) == "[NAME] of [ORGANISATION] in [LOCATION] pays 5 dollars to [NAME] [CARD]."
    assert counts == {"NAME": 2, "ORGANISATION": 1, "LOCATION": 1, "CARD": 1}
    only = Scrubber(make_rules(None, policy=None, find="NAME", otherwise="all", tagger=str(model)))
    assert [span.entity for span in only.find(text)] == ["NAME", "NAME"]


def test_missing_model_and_model_without_names_are_named(tmp_path: Path) -> None:
    spacy.blank("en").to_disk(tmp_path / "blank")
    for name, problem in (
        ("no_such_model", "no spaCy model 'no_such_model'"),
        (str(tmp_path / "blank"), "finds no names"),
        (str(tmp_path / "nowhere"), "There is no folder .*nowhere with a tagger"),
    ):
        rules = make_rules(None, policy=None, find="all", otherwise="all", tagger=name)
        with pytest.raises(InputError, match=problem):
            Scrubber(rules).find("Jane Doe")
