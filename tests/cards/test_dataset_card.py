"""The data set card: every figure of the corpus, in Markdown that names from outside cannot break."""

from __future__ import annotations

from dataclasses import replace

import pytest

from finetune.cards.dataset_card import card_text
from finetune.recipe import load_domain

from .test_corpus_page import FACTS, HITS


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_card_has_every_figure() -> None:
    card = lines(card_text(None, replace(FACTS, scrubbed={"EMAIL": 3, "IBAN": 1200})))
    assert card[0] == "# Finance corpus"
    for line in (
        "| train | 12,345 |",
        "Tasks: classification (10,000 rows), qa (2,501 rows).",
        FACTS.split_rule,
        FACTS.disjoint,
        "| news | hf://datasets/acme/news | 9c8a | text and label | 10,150 | 10,001 | mit |",
        "| filings | filings.csv | - | question and answer | 2,548 | 2,500 | cc-by-4.0 |",
        "Licence of the corpus: **cc-by-4.0**, the strictest among its sources. Each row states its source and licence in its",
        "| dedup | near_duplicate | 190 |",
        "| quality | too_short | 7 |",
        "92 clusters of near-duplicates, with 2,201 rows in all; the largest has 2,000.",
        "| fpb-test | 970 | 1 |",
        "| pubmedqa | 500 | 0 |",
        "1 row in all contained an item of an evaluation set.",
        "Word n-grams that did not count because many documents contain them: 431.",
        "Replaced by tags: IBAN (1,200), EMAIL (3).",
        "- Two files hold no text.",
    ):
        assert line in card, line


def test_missing_parts_are_mentioned() -> None:
    card = lines(card_text(None, replace(FACTS, dropped=[], clusters={}, eval_sets=[], hits=[])))
    for line in (
        "Nothing.",
        "No near-duplicates were found.",
        "The rows were not compared with any evaluation set.",
        "Nothing was scrubbed.",
    ):
        assert line in card, line
    assert "Near-duplicates were not searched for." in lines(card_text(None, replace(FACTS, clusters=None)))
    assert "## Decontamination" not in card_text(None, replace(FACTS, eval_sets=None, hits=[]))


def test_card_carries_the_domains_description_and_caution() -> None:
    domain = load_domain("finance")
    card = card_text(domain, FACTS)
    assert domain.recipe.description in card
    assert f"**Caution.** {domain.recipe.caution}" in card
    assert "**Caution.**" not in card_text(None, FACTS)


@pytest.mark.parametrize("name", ["a|b", "a\\|b", "a\n| b", "<img src=x>", "[text](javascript:x)", "`x`"])
def test_names_cannot_break_out_of_their_cell(name: str) -> None:
    source = replace(FACTS.sources[0], id=name, uri=name)
    card = card_text(None, replace(FACTS, title=name, sources=[source], dropped=[(name, name, 5)]))
    rows = [line.replace("\\\\", "").replace("\\|", "") for line in lines(card)]
    assert [row.count("|") for row in rows if row.endswith("| mit |")] == [8]
    assert [row.count("|") for row in rows if row.endswith("| 5 |")] == [4]
    for opening in ("<img", "[text]("):
        assert card.count(opening) == card.count(f"\\{opening}")


def test_same_facts_give_the_same_bytes_in_any_order() -> None:
    turned = replace(
        FACTS,
        by_task=dict(reversed(list(FACTS.by_task.items()))),
        dropped=FACTS.dropped[::-1],
        hits=HITS[::-1],
        sources=FACTS.sources[::-1],
    )
    first, second, third = (
        card_text(None, facts)
        for facts in (
            replace(FACTS, scrubbed={"A": 1, "B": 1}),
            replace(turned, scrubbed={"A": 1, "B": 1}),
            replace(FACTS, scrubbed={"B": 1, "A": 1}),
        )
    )
    assert first == second == third
