"""The page of an evaluation: the terminal's figures, confusions, the worst errors, and nothing that a row could break."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from typing import Any

from finetune.cards.eval_page import ANSWER_LENGTH, MATRIX_LABELS, PROMPT_LENGTH, WORST, Answer, ScoredRow, eval_page
from finetune.cards.loss_curve import LossCurve, Tick
from finetune.cli.render.evaluation import render_scores
from finetune.evaluate import TaskScore

from .page import Page

LABELS = TaskScore(
    n=4,
    metric="weighted_f1",
    majority=0.5,
    majority_label="up",
    base={"accuracy": 0.25, "weighted_f1": 0.2011, "macro_f1": 0.1987},
    adapter={"accuracy": 0.75, "weighted_f1": 0.7662, "macro_f1": 0.7423},
    delta=0.5651,
    ci95=(0.4689, 0.6536),
    p_value=0.00049975,
)
TEXTS = TaskScore(3, "token_f1", None, None, {"token_f1": 0.4}, {"token_f1": 0.3}, -0.1, (-0.2, 0.05), 0.3123)
ADAPTER = {"parents": {"corpus": {"sources": [{"id": "news", "license": "mit"}]}}}
CURVE = LossCurve(
    [(0.0, 10.0), (600.0, 150.0)],
    [(600.0, 120.0)],
    True,
    [Tick("0", 0), Tick("50", 100)],
    [Tick("0.1", 0), Tick("10", 100)],
    {"training": (50, 0.25), "held out": (50, 0.375)},
)


def label(number: int, expected: str, base: str, adapter: str, margin: float = 0.0) -> ScoredRow:
    def answer(text: str) -> Answer:
        return Answer(text, float(text == expected), 0.875)

    both = {"base": answer(base), "adapter": answer(adapter)}
    return ScoredRow(f"news/{number}", "Up or down?", f"Row {number}", expected, both, ("up", "down"), margin)


def text(number: int, base: float, adapter: float) -> ScoredRow:
    answers = {"base": Answer(f"base {number}", base), "adapter": Answer(f"adapter {number}", adapter)}
    return ScoredRow(f"faq/{number}", "", f"Question {number}", f"Expected {number}", answers)


NEWS = [
    label(1, "up", "down", "up"),
    label(2, "up", "up", "up"),
    label(3, "down", "up", "down"),
    label(4, "down", "up", "up", 0.7),
]


def render(rows: dict[str, list[ScoredRow]] | None = None, curve: LossCurve | None = CURVE, **tasks: TaskScore) -> Page:
    data: dict[str, Any] = {
        "tasks": {name: asdict(score) for name, score in (tasks or {"news": LABELS}).items()},
        "split": "test",
        "parents": {
            "adapter": {"fingerprint": "a" * 64},
            "corpus": {"fingerprint": "c" * 64, "domain": "finance"},
            "base_model": {"name": "acme/tiny", "license": "mit", "fingerprint": "b" * 64},
        },
        "slmtune_version": "0.1.0",
        "created": "2026-11-25T18:50:01+00:00",
        "seconds": 30.2,
    }
    return Page(eval_page(data, ADAPTER, rows or {"news": NEWS}, curve))


def cells(page: Page) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in page.rows]


def test_page_is_well_formed_and_fetches_nothing() -> None:
    page = render({"news": NEWS, "faq": [text(1, 0.4, 0.3)]}, news=LABELS, faq=TEXTS)
    assert page.problems == []
    assert len(set(page.values("id"))) == len(page.values("id"))
    assert not {"script", "link", "img", "iframe", "object", "form", "a", "base"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import|javascript:", page.html)
    assert "default-src 'none'" in " ".join(page.values("content"))


def test_page_has_the_figures_of_the_terminal() -> None:
    page = render({"news": NEWS, "faq": [text(1, 0.4, 0.3)]}, news=LABELS, faq=TEXTS)
    printed = re.findall(r"[+-]?\d+\.\d{3}", render_scores({"news": LABELS, "faq": TEXTS}))
    assert len(printed) > 5
    table = " ".join(" ".join(row) for row in cells(page)[:5])
    assert [figure for figure in printed if figure not in table] == []


def test_verdict_follows_from_the_interval() -> None:
    assert "The adapter is better than its base model." in render().text
    assert "The difference may be chance" in render({"faq": [text(1, 0.4, 0.3)]}, faq=TEXTS).text
    worse = replace(LABELS, ci95=(-0.3, -0.1), adapter={**LABELS.adapter, "accuracy": 0.5})
    assert "The adapter is worse than its base model." in render(news=worse).text
    assert "not more accurate than always answering “up”" in render(news=worse).text


def test_confusion_matrix_counts_each_pair_of_labels() -> None:
    rows = cells(render())
    base, adapter = [number for number, row in enumerate(rows) if row == ["", "up", "down"]]
    assert rows[base + 1 : base + 3] == [["up", "1", "1"], ["down", "2", "0"]]
    assert rows[adapter + 1 : adapter + 3] == [["up", "2", "0"], ["down", "1", "1"]]


def test_many_labels_are_listed_by_their_most_frequent_confusions() -> None:
    rows = [label(number, f"intent {number}", "none", "none") for number in range(MATRIX_LABELS + 5)]
    rows += [label(99, "intent 3", "intent 5", "none")]
    listed = [row for row in cells(render({"news": rows})) if len(row) == 4 and row[1] == "none"]
    assert listed[0] == ["intent 3", "none", "2", "1"]
    assert len(listed) == MATRIX_LABELS


def test_worst_errors_come_first_the_surest_or_the_lowest_score() -> None:
    rows = [label(number, "up", "up", "down", number / 100) for number in range(WORST + 3)]
    page = render({"news": [*NEWS[:3], *rows]})
    assert re.findall(r"Row (\d+)", page.text) == [str(number) for number in range(WORST + 2, 2, -1)]
    assert f"Wrong answers: {WORST + 3}." in page.text
    assert page.text.count("Up or down?") == 1  # the instruction that all prompts share
    page = render({"faq": [text(1, 0.4, 0.3), text(2, 0.9, 0.0), text(3, 1.0, 1.0)]}, faq=TEXTS)
    assert re.findall(r"Question (\d+)", page.text) == ["2", "1"]
    assert re.search(r"Expected 2.*adapter 2.*base 2", page.text, re.DOTALL)


def test_page_says_how_often_the_adapter_beats_its_base() -> None:
    assert "right on 2 of 4 rows where its base is wrong, and wrong on 0" in render().text


def test_no_error_is_said() -> None:
    assert "None: every answer is the expected one." in render({"news": NEWS[:3]}).text


def test_rows_cannot_become_markup_and_long_ones_are_cut() -> None:
    evil = "<script>alert(1)</script>\"'&{{ 7*7 }}"
    long = evil + "start " * 5000 + " end" + evil
    row = replace(
        label(1, "up", "up", "down"),
        id=evil,
        instruction=evil,
        prompt=long,
        reference=long,
        answers={"base": Answer("up", 1.0), "adapter": Answer(long, 0.0, 0.5)},
    )
    page = render({"news": [row]})
    assert page.problems == []
    assert page.tags["script"] == 0
    assert evil in page.text
    assert f"end{evil}" in page.text
    assert len(page.text) < 10_000 + 4 * (PROMPT_LENGTH + 6 * ANSWER_LENGTH)


def test_loss_is_left_out_where_it_is_not_known() -> None:
    assert "training, 0.250 at step 50" in render().text
    page = render(curve=None)
    assert "How training went" not in page.text
    assert page.problems == []


def test_page_reads_well_without_eyes() -> None:
    page = render({"news": NEWS, "faq": [text(1, 0.4, 0.3)]}, news=LABELS, faq=TEXTS)
    assert ("html", "lang", "en") in page.attributes
    assert page.tags["h1"] == 1
    assert page.tags["caption"] == page.tags["table"]
    assert page.tags["section"] == page.tags["h2"] == len(page.values("aria-labelledby")) - 1
    assert set(page.values("aria-labelledby")) <= set(page.values("id"))
    assert page.values("role").count("img") + page.values("aria-hidden").count("true") == page.tags["svg"]
    assert len(page.values("scope")) == page.tags["th"]


def test_page_says_that_it_holds_rows() -> None:
    assert "contains text of rows" in render().text
