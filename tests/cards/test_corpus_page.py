"""The page of a corpus: complete, self-contained, accessible, and without any row's text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.cards.corpus_facts import ComparedSet, CorpusFacts, NamedHit, SourceFacts
from finetune.cards.corpus_page import LABEL_LENGTH, LISTED_HITS, NAMED_LABELS, corpus_page
from finetune.corpus.view import CorpusView, show_corpus
from finetune.records import Drop, Example, Message

from ..corpora import write_corpus
from ..prepare.conftest import Preparer, write_jsonl
from .page import Page

SECRET = "swordfish-4711"
HITS = [
    NamedHit("news/7", "fpb-test", "i-31", "question", 0.87),
    NamedHit("news/7", "fpb-test", "i-32", "answer", 1.0),
]
FACTS = CorpusFacts(
    title="Finance corpus",
    splits={"train": 12345, "validation": 67, "test": 89},
    by_task={"qa": 2501, "classification": 10000},
    labels={"news": {"bullish": 4001, "bearish": 5999}},
    words_histogram=[(8, 11), (16, 222), (32, 3333), (2**31, 44)],
    dropped=[("dedup", "near_duplicate", 190), ("quality", "too_short", 7)],
    clusters={2: 80, 3: 9, 7: 2, 2000: 1},
    hits=HITS,
    sources=[
        SourceFacts("news", "hf://datasets/acme/news", "9c8a", 10150, 10001, "mit", "text and label"),
        SourceFacts("filings", "filings.csv", None, 2548, 2500, "cc-by-4.0", "question and answer"),
    ],
    license="cc-by-4.0",
    notes=["Two files hold no text."],
    split_rule="By a hash of each row's group.",
    disjoint="No group is in two splits (12,501 rows).",
    eval_sets=[ComparedSet("fpb-test", 970), ComparedSet("pubmedqa", 500)],
    boilerplate=431,
)


def test_page_is_well_formed() -> None:
    html = corpus_page(FACTS)
    page = Page(html)
    assert html.startswith("<!doctype html>")
    assert page.problems == []
    assert len(set(page.values("id"))) == len(page.values("id"))
    assert page.tags["html"] == page.tags["head"] == page.tags["body"] == page.tags["main"] == 1


def test_page_loads_nothing_and_runs_nothing() -> None:
    html = corpus_page(FACTS)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form", "a", "base"} & set(page.tags)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:", html.replace("hf://datasets/acme/news", ""))
    assert not [name for name in (name for _, name, _ in page.attributes) if name.startswith("on") or name == "src"]
    assert "default-src 'none'" in " ".join(page.values("content"))


def test_page_has_every_figure() -> None:
    page = Page(corpus_page(FACTS))
    rows = [[cell.strip() for cell in row] for row in page.rows]
    assert ["train", "12,345", "98.8 %", ""] in rows
    assert ["test", "89", "0.7 %", ""] in rows
    assert ["classification", "10,000", "80.0 %", ""] in rows
    assert ["news", "10,001", "80.0 %", ""] in rows
    assert ["bearish", "5,999", "60.0 %", ""] in rows
    assert ["0 to 8", "11", "0.3 %", ""] in rows
    assert ["17 to 32", "3,333", "92.3 %", ""] in rows
    assert ["33 and more", "44", "1.2 %", ""] in rows
    assert ["dedup: near_duplicate", "190", "96.4 %", ""] in rows
    assert [row[:2] for row in rows if row[0].endswith(("rows", "rows and more"))] == [
        ["2 rows", "80"],
        ["3 rows", "9"],
        ["6 to 10 rows", "2"],
        ["101 rows and more", "1"],
    ]
    assert ["fpb-test", "970", "1"] in rows
    assert ["pubmedqa", "500", "0"] in rows
    assert ["news/7", "fpb-test", "i-31", "question", "87 %"] in rows
    assert ["news", "hf://datasets/acme/news", "9c8a", "text and label", "10,150", "10,001", "mit"] in rows
    assert ["filings", "filings.csv", "–", "question and answer", "2,548", "2,500", "cc-by-4.0"] in rows
    for text in ("Finance corpus", "12,501", "197", "cc-by-4.0", "431", *FACTS.notes, FACTS.split_rule, FACTS.disjoint):
        assert text in page.text


def test_bars_are_as_long_as_their_numbers() -> None:
    page = Page(corpus_page(FACTS))
    widths = [float(value) for tag, name, value in page.attributes if (tag, name) == ("rect", "width")]
    assert widths[:3] == [100.0, 0.54, 0.72]  # 67 and 89 of 12,345
    assert len(widths) == sum(
        len(row) == 4 and row[2].endswith("%") for row in page.rows
    )  # one for each line of a chart


def test_page_is_accessible_to_screen_readers() -> None:
    """Bars only decorate tables with the same figures; every table, section and scrolling box has a name."""
    page = Page(corpus_page(FACTS))
    assert ("html", "lang", "en") in page.attributes
    assert page.values("aria-hidden") == ["true"] * page.tags["svg"]
    assert page.tags["caption"] == page.tags["table"] > 5
    assert set(page.values("aria-labelledby")) <= set(page.values("id"))
    assert len(page.values("aria-labelledby")) == page.tags["section"] == page.tags["h2"]
    assert page.values("role") == ["region"] * len(page.values("aria-label")) == ["region"] * 2
    assert page.values("scope").count("col") + page.values("scope").count("row") == page.tags["th"]
    assert page.tags["h1"] == 1


def test_page_follows_light_and_dark() -> None:
    html = corpus_page(FACTS)
    assert "prefers-color-scheme: dark" in html
    light, dark = re.findall(r"--ink: (#\w+); .*?--paper: (#\w+);", html)
    assert luminance(light[0]) < 0.1 < 0.9 < luminance(light[1])
    assert luminance(dark[1]) < 0.1 < 0.7 < luminance(dark[0])


def luminance(color: str) -> float:
    """Relative luminance as in WCAG, without gamma: enough to distinguish dark from light."""
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return float(0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2)


def test_same_facts_give_the_same_bytes_in_any_order() -> None:
    turned = replace(
        FACTS,
        by_task=dict(reversed(list(FACTS.by_task.items()))),
        labels={source: dict(reversed(list(labels.items()))) for source, labels in FACTS.labels.items()},
        words_histogram=FACTS.words_histogram[::-1],
        dropped=FACTS.dropped[::-1],
        clusters=dict(reversed(list((FACTS.clusters or {}).items()))),
        hits=HITS[::-1],
        sources=FACTS.sources[::-1],
    )
    assert corpus_page(FACTS) == corpus_page(FACTS) == corpus_page(turned)


def test_names_cannot_become_markup() -> None:
    evil = "<script>alert(1)</script>\"'&{{ 7*7 }}"
    facts = replace(FACTS, title=evil, labels={evil: {evil: 3}}, notes=[evil], license=evil)
    facts = replace(facts, sources=[replace(FACTS.sources[0], id=evil, uri=evil, shape=evil)])
    page = Page(corpus_page(facts))
    assert page.problems == []
    assert page.tags["script"] == 0
    assert evil in page.text


def test_no_text_of_a_row_is_on_the_page(tmp_path: Path) -> None:
    """Messages, choices and groups contain a secret; a label that is a text rather than a name is not printed either."""
    label = f"{SECRET} " + "is the label of a row whose labels are whole sentences, which somebody mapped by mistake"
    rows = [
        Example(
            f"news/{n}",
            (Message("system", SECRET), Message("user", f"{SECRET} {n}"), Message("assistant", label)),
            "classification",
            label if n == 0 else "bullish",
            (label, "bullish"),
            f"group {SECRET}",
            "news",
            "mit",
        )
        for n in range(5)
    ]
    assert len(label) > LABEL_LENGTH
    corpus = write_corpus(tmp_path / "c", {"train": rows}, drops=[Drop("news/9", "dedup", "duplicate")])
    html = corpus_page(facts_of(show_corpus(corpus.path)))
    assert SECRET not in html
    assert "(1 more)" in html
    assert "bullish" in html


def test_prepare_writes_a_page_without_row_text(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"question": f"Who knows {SECRET} number {n}?", "answer": f"{SECRET} {n}"} for n in (1, 2, 3, 3)]
    preparation = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), license="mit")
    assert any(SECRET in text for text in preparation.texts)
    assert preparation.drops
    for name in ("corpus.html", "README.md", "drops.jsonl", "manifest.json"):
        assert SECRET not in (preparation.corpus.path / name).read_text("utf-8")
    assert Page((preparation.corpus.path / "corpus.html").read_text("utf-8")).problems == []


def facts_of(view: CorpusView) -> CorpusFacts:
    """All facts of a corpus that the page can show."""
    return CorpusFacts(
        title="Corpus",
        splits=dict(view.splits.items()),
        by_task=view.tasks,
        labels=view.labels,
        words_histogram=[(each.high, each.rows) for each in view.lengths.histogram] if view.lengths else [],
        dropped=[(drop.step, drop.reason, drop.rows) for drop in view.drops],
        clusters={},
        hits=[],
        sources=[
            SourceFacts(source.id, "news.csv", None, 6, source.rows, source.license, "") for source in view.sources
        ],
        license="mit",
    )


def test_many_labels_and_hits_are_counted_not_listed() -> None:
    labels = {f"intent {n}": n + 1 for n in range(NAMED_LABELS + 5)}
    hits = [replace(HITS[0], row=f"news/{n:05}") for n in range(LISTED_HITS + 3)]
    page = Page(corpus_page(replace(FACTS, labels={"news": labels}, hits=hits)))
    assert "(5 more)" in page.text
    assert sum(row[0].startswith("intent ") for row in page.rows) == NAMED_LABELS
    assert f"first {LISTED_HITS} of {LISTED_HITS + 3}" in page.text
    assert sum(row[0].startswith("news/") for row in page.rows) == LISTED_HITS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clusters": None}, "Near-duplicates were not searched for."),
        ({"clusters": {}}, "None were found."),
        ({"dropped": []}, "Nothing."),
        ({"eval_sets": [], "hits": []}, "The rows were not compared with any evaluation set."),
    ],
)
def test_missing_parts_are_mentioned(change: dict[str, object], said: str) -> None:
    assert said in Page(corpus_page(replace(FACTS, **change))).text  # type: ignore[arg-type]
    assert said not in Page(corpus_page(FACTS)).text


def test_page_without_facts_on_eval_sets_claims_nothing_of_them() -> None:
    page = Page(corpus_page(replace(FACTS, eval_sets=None, hits=[])))
    assert "Decontamination" not in page.text
    assert page.problems == []
