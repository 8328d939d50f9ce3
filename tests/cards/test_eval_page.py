"""The page of an evaluation: figures, confusions, rows to read, one script, and nothing that a row could break."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from finetune.artifacts import Adapter
from finetune.cards.eval_confusions import MATRIX_LABELS
from finetune.cards.eval_page import eval_page
from finetune.cards.loss_curve import LossCurve
from finetune.cards.scored_rows import ANSWER_LENGTH, LISTED, PROMPT_LENGTH, Answer, ScoredRow
from finetune.cli.render.evaluation import render_scores
from finetune.evaluate import TaskScore
from finetune.evaluate.details import Bin, Calibration, ClassScore, ModelDetails
from finetune.evaluate.request import CleanScore, Comparison, Forgetting, PerplexityChange, ScoreDrop

from .page import Page

GAIN = Comparison(0.5651, (0.4689, 0.6536), 0.00049975, 2, 0, 0.5)
LABELS = TaskScore(
    n=4,
    metric="weighted_f1",
    majority=0.5,
    majority_label="up",
    base={"accuracy": 0.25, "weighted_f1": 0.2011, "macro_f1": 0.1987},
    adapter={"accuracy": 0.75, "weighted_f1": 0.7662, "macro_f1": 0.7423},
    delta=GAIN.delta,
    ci95=GAIN.ci95,
    p_value=GAIN.p_value,
    comparisons={"base": GAIN},
    details={
        "base": ModelDetails(
            (0.1, 0.3),
            (ClassScore("up", 2, 3, 1, 1 / 3, 0.5, 0.4), ClassScore("down", 2, 1, 0, 0.0, 0.0, 0.0)),
            Calibration(0.625, (Bin(0.8, 0.9, 4, 0.875, 0.25),)),
        ),
        "adapter": ModelDetails(
            (0.6, 0.9),
            (ClassScore("up", 2, 3, 2, 2 / 3, 1.0, 0.8), ClassScore("down", 2, 1, 1, 1.0, 0.5, None)),
            Calibration(0.125, (Bin(0.8, 0.9, 4, 0.875, 0.75),)),
        ),
    },
    guesses={"majority": {"accuracy": 0.5, "weighted_f1": 0.3333}, "random": {"accuracy": 0.5, "weighted_f1": 0.5002}},
)
SAME = Comparison(-0.1, (-0.2, 0.05), 0.3123, 0, 1)
TEXTS = TaskScore(
    *(3, "token_f1", None, None, {"token_f1": 0.4}, {"token_f1": 0.3}, SAME.delta, SAME.ci95, SAME.p_value),
    comparisons={"base": SAME},
    details={"base": ModelDetails((0.3, 0.5)), "adapter": ModelDetails((0.2, 0.4))},
)
SOURCE = {"id": "news", "uri": "hf://datasets/acme/news", "revision": "d" * 40, "kept": 690, "license": "mit"}
ADAPTER = Adapter(
    Path("adapter"),
    {
        "config": {"lora_r": 7, "seed": 11, "target_modules": "all-linear|x"},
        "parents": {
            "base_model": {"name": "acme/tiny", "license": "apache-2.0", "fingerprint": "b" * 64},
            "corpus": {"fingerprint": "e" * 64, "domain": "finance", "sources": [SOURCE]},
            "replay": {"fingerprint": "f" * 64},
        },
    },
)
FORGETTING = Forgetting(
    *(312, 0.61, 0.58, 0.03, (0.01, 0.05), 0.004),
    categories={"common_sense": ScoreDrop(70, 0.5, 0.45, 0.05, (-0.01, 0.11))},
    perplexity=PerplexityChange(40, 3000, 21.34, 23.46, 1.0993, (1.0802, 1.1201)),
)
CURVE = LossCurve([(10, 1.0), (20, 0.5), (50, 0.25)], [(50, 0.375)])


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


def render(
    rows: dict[str, list[ScoredRow]] | None = None,
    curve: LossCurve | None = CURVE,
    forgetting: Forgetting | None = None,
    gate: Sequence[dict[str, Any]] = (),
    **tasks: TaskScore,
) -> Page:
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
        "libraries": {"torch": "2.13.0"},
        **({"forgetting": asdict(forgetting)} if forgetting else {}),
        "gate": gate,
        "eval_sets": {"tfns": {"uri": "hf://datasets/acme/tfns", "revision": "e" * 40, "license": None}},
    }
    return Page(eval_page(data, ADAPTER, rows or {"news": NEWS}, curve))


def cells(page: Page) -> list[list[str]]:
    return [[cell.strip() for cell in row] for row in page.rows]


def kinds_of(page: Page) -> list[set[str]]:
    return [set(value.split()) for value in page.values("data-kinds")]


def test_page_is_well_formed_and_fetches_nothing() -> None:
    page = render({"news": NEWS, "faq": [text(1, 0.4, 0.3)]}, news=LABELS, faq=TEXTS)
    assert page.problems == []
    assert len(set(page.values("id"))) == len(page.values("id"))
    assert not {"link", "img", "iframe", "object", "form", "a", "base"} & set(page.tags)
    assert not re.search(r"https?:|url\((?!#)|@import|javascript:", page.html)
    assert [value for value in page.values("href") if not value.startswith("#")] == []
    assert "default-src 'none'" in " ".join(page.values("content"))


def test_page_has_the_figures_of_the_terminal() -> None:
    page = render({"news": NEWS, "faq": [text(1, 0.4, 0.3)]}, news=LABELS, faq=TEXTS)
    printed = re.findall(r"[+-]?\d+\.\d{3}", render_scores({"news": LABELS, "faq": TEXTS}))
    assert len(printed) > 5
    said = " ".join([page.text, *page.values("aria-label")])
    assert [figure for figure in printed if figure not in said] == []


def test_policy_allows_the_one_script_of_the_page_and_no_other() -> None:
    page = render()
    scripts = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(value for value in page.values("content") if "default-src" in value)
    assert page.tags["script"] == len(scripts) == 1
    assert re.findall(r"script-src ([^;]+)", policy) == [f"'sha256-{digest}'"]
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []


def test_page_is_whole_without_its_script() -> None:
    page = render()
    hidden = [(tag, name) for tag, name, _ in page.attributes if name == "hidden"]
    assert hidden == [("div", "hidden"), ("button", "hidden")]  # the search, and the button that shows more rows
    assert page.tags["li"] == len(NEWS)


def test_page_has_every_figure_of_every_contestant() -> None:
    score = replace(
        LABELS,
        few_shot={"accuracy": 0.5012, "weighted_f1": 0.4937, "macro_f1": 0.4871},
        comparisons={"base": GAIN, "few_shot": Comparison(0.2727, (0.1031, 0.3912), 0.0132)},
        details={**LABELS.details, "few_shot": ModelDetails((0.4, 0.6))},
    )
    rows = [replace(row, answers={**row.answers, "few_shot": row.base}) for row in NEWS]
    page = render({"news": rows, "faq": [text(1, 0.4, 0.3)]}, news=score, faq=TEXTS)
    table = " ".join(" ".join(row) for row in cells(page)[:9])
    expected = "0.250 0.201 0.333 0.501 0.494 0.750 0.766 +0.565 +0.469 +0.654 0.0005 0.5000"
    expected += " +0.273 +0.103 +0.391 0.0132 -0.100 0.3123"
    assert [figure for figure in expected.split() if figure not in table] == []
    assert page.text.count("Few-shot base") == len(rows)  # its answer stands beside the others
    bars = next(value for value in page.values("aria-label") if value.startswith("weighted F1 by contestant"))
    assert bars.endswith(
        "few-shot base 0.494 (0.400 to 0.600), adapter 0.766 (0.600 to 0.900), majority 0.333, random 0.500"
    )


def test_page_says_what_the_figures_mean() -> None:
    assert "The adapter is better than its base model by 0.57 (0.47 to 0.65)." in render().text
    assert "is not measurably different from its base model" in render({"faq": [text(1, 0.4, 0.3)]}, faq=TEXTS).text


def test_each_label_has_its_figures() -> None:
    rows = cells(render())
    header = rows.index(["Label", "Rows", "Given", "Precision", "Recall", "F1", "F1 of the base"])
    assert rows[header + 1 : header + 3] == [
        ["up", "2", "3", "0.667", "1.000", "0.800", "0.400"],
        ["down", "2", "1", "1.000", "0.500", "–", "0.000"],
    ]


def test_reliability_of_base_and_adapter_is_drawn() -> None:
    page = render()
    assert [value for value in page.values("aria-label") if value.startswith("Reliability diagram of base and adapter")]
    assert "adapter, calibration error 0.125" in page.text
    assert "calibration error" not in render({"faq": [text(1, 0.4, 0.3)]}, faq=TEXTS).text


def test_what_does_not_count_is_said() -> None:
    details = replace(
        LABELS.details["base"],
        unparsable=1,
        abstained=3,
        scoring="raw",
        scorings={"raw": {"accuracy": 0.2}, "calibrated": {"accuracy": 0.25}},
    )
    score = replace(
        LABELS,
        metric="accuracy",
        adapter={"accuracy": 0.75, "weighted_f1": None},
        base={"accuracy": 0.25, "weighted_f1": None},
        undefined={"weighted_f1": "all rows have the same label"},
        absent={"few_shot": "its examples do not fit"},
        details={**LABELS.details, "base": details},
        scorer="lm-evaluation-harness 0.4.13",
    )
    page = render(news=score)
    for note in (
        "Weighted F1 is not defined: all rows have the same label.",
        "Few-shot base is left out: its examples do not fit.",
        "Base: 1 answer is not what was asked for (a choice, a number), which counts as wrong.",
        "Base: 3 answers are empty or a refusal, which counts as wrong.",
        "Scored by lm-evaluation-harness 0.4.13.",
        "Base, accuracy by the way labels are scored: raw 0.200, calibrated 0.250; used: raw.",
    ):
        assert note in page.text
    assert page.problems == []


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
    rows = [label(number, "up", "up", "down", number / 100) for number in range(13)]
    page = render({"news": [*NEWS[:3], *rows]})
    order = [str(number) for number in range(12, -1, -1)]
    assert re.findall(r"Row (\d+)", page.text)[: len(order)] == order
    assert page.text.count("Up or down?") == 1  # the instruction that all prompts share
    page = render({"faq": [text(1, 0.4, 0.3), text(2, 0.9, 0.0), text(3, 1.0, 1.0)]}, faq=TEXTS)
    assert re.findall(r"Question (\d+)", page.text) == ["2", "1", "3"]
    assert re.search(r"Expected 2.*adapter 2.*base 2", page.text, re.DOTALL)


def test_rows_say_why_they_are_worth_reading() -> None:
    rows = [*NEWS[:3], label(4, "down", "down", "up", 0.7), replace(label(5, "up", "up", "up"), lead=0.04)]
    page = render({"news": rows})
    assert re.findall(r"Row (\d+)", page.text) == ["4", "1", "5", "2", "3"]  # one of each kind in turn
    assert kinds_of(page) == [
        {"wrong", "lost", "sure"},
        {"right", "won"},
        {"right", "close"},
        {"right"},
        {"right", "won"},
    ]
    assert re.findall(r'<option value="(\w+)">', page.html)[:6] == ["wrong", "right", "lost", "won", "sure", "close"]


def test_texts_are_neither_right_nor_wrong() -> None:
    page = render({"faq": [text(1, 0.4, 0.3), text(2, 0.2, 0.6), text(3, 0.5, 0.5)]}, faq=TEXTS)
    assert kinds_of(page) == [{"lost"}, {"won"}, set()] or kinds_of(page) == [{"lost"}, set(), {"won"}]
    assert "The adapter scores lower than the base" in page.text
    assert "Only the adapter is right" not in page.text


def test_a_long_list_keeps_rows_of_every_kind() -> None:
    wrong = [label(number, "up", "down", "down", 0.9) for number in range(LISTED)]
    lost = [label(1000 + number, "up", "up", "down", 0.1) for number in range(5)]
    won = [label(2000 + number, "up", "down", "up") for number in range(5)]
    both = [label(3000 + number, "up", "up", "up") for number in range(LISTED)]
    page = render({"news": [*wrong, *lost, *won, *both]})
    kinds = kinds_of(page)
    assert len(kinds) == LISTED
    assert sum("lost" in each for each in kinds) == sum("won" in each for each in kinds) == 5
    assert any(each == {"right"} for each in kinds)
    assert f"{LISTED} of {2 * LISTED + 10} rows" in page.text


def test_page_says_how_often_the_adapter_beats_its_base() -> None:
    assert "right on 2 of 4 rows where its base is wrong, and wrong on 0" in render().text


def test_rows_cannot_become_markup_and_long_ones_are_cut() -> None:
    evil = "<script>alert(1)</script>\"'&{{ 7*7 }}$x^2$\x1b"
    long = evil + "start " * 5000 + " end" + evil
    answers = {"base": Answer("up", 1.0), evil: Answer(evil, 0.0), "adapter": Answer(long, 0.0, 0.5)}
    row = replace(label(1, "up", "up", "down"), id=evil, instruction=evil, prompt=long, reference=long, answers=answers)
    other = replace(row, id="2", reference=evil)
    score = replace(
        LABELS,
        vs={evil: LABELS.base},
        comparisons={"base": GAIN, evil: Comparison(0.1, (0.0, 0.2), 0.5)},
        details={**LABELS.details, evil: ModelDetails((0.0, 1.0), unparsable=2)},
        absent={f"another {evil}": "it has no chat template"},
    )
    page = render({"news": [row, other]}, news=score)
    assert page.problems == []
    assert page.tags["script"] == 1
    assert evil in page.text
    assert f"end{evil}" in page.text
    assert len(page.text) < 10_000 + 8 * (PROMPT_LENGTH + 6 * ANSWER_LENGTH)


def test_loss_is_left_out_where_it_is_not_known() -> None:
    assert "training, 0.250 at step 50" in render().text
    page = render(curve=None)
    assert "nats per" not in page.text
    assert page.problems == []


def test_page_says_where_everything_comes_from() -> None:
    page = render()
    lines = cells(page)
    assert ["news", "hf://datasets/acme/news", "d" * 12, "690", "mit"] in lines
    facts = {line[0]: line[1] for line in lines if len(line) == 2}
    assert facts["Licences"] == "apache-2.0 (base model), mit (corpus)"
    assert facts["Seed"] == "11"
    assert facts["Target modules"] == "all-linear|x"
    assert facts["Trained on the corpus"] == "e" * 16
    assert facts["Replayed rows"] == "f" * 16
    assert facts["Libraries"] == "torch 2.13.0"
    assert facts["Rows of tfns"] == f"hf://datasets/acme/tfns, revision {'e' * 12} (licence unknown)"
    assert facts["Rows of the training"].startswith("not compared with those evaluated")


def test_rows_of_the_training_are_told_apart() -> None:
    base, tuned = {"weighted_f1": 0.2}, {"weighted_f1": 0.7}
    score = replace(LABELS, train_overlap=3, clean=CleanScore(1, base, tuned, 0.5, (0.25, 0.75)))
    page = render(news=score)
    assert (
        "The adapter was trained on 3 of these rows; weighted F1 without these: 0.200 → 0.700, +0.500 (+0.250 to +0.750)."
        in page.text
    )
    assert "compared with those evaluated: 3 in both" in page.text
    assert "trained on 3 of these rows." in render(news=replace(score, clean=None)).text


def test_conditions_of_the_gate_are_listed() -> None:
    conditions: list[dict[str, Any]] = [
        {"condition": "news.weighted_f1>=0.8", "value": 0.7662, "passed": False, "reason": None},
        {"condition": "news.macro_f1>=0.1", "value": None, "passed": False, "reason": "it is one class"},
        {"condition": "news.delta>0", "value": 0.5651, "passed": True, "reason": None},
    ]
    text = render(gate=conditions).text
    assert "✗ Gate failed: news.weighted_f1>=0.8 (0.7662)" in text
    assert "✗ Gate failed: news.macro_f1>=0.1 (not defined, because it is one class)" in text
    assert "✓ Gate passed: news.delta>0 (0.5651)" in text
    assert "Gate" not in render().text


def test_what_was_forgotten_is_told_by_category() -> None:
    page = render(forgetting=FORGETTING)
    assert ["common sense", "70", "0.500", "0.450", "+0.050", "-0.010 to +0.110"] in cells(page)
    assert ["all", "312", "0.610", "0.580", "+0.030", "+0.010 to +0.050"] in cells(page)
    assert "The adapter has lost some of what its base could do." in page.text
    assert "Perplexity of general text (lower is better): 21.34 → 23.46, ratio 1.099 (1.080 to 1.120)." in page.text
    assert "Nothing measurable was lost." in render(forgetting=replace(FORGETTING, ci95=(-0.01, 0.05))).text
    assert "What was forgotten" not in render().text


def test_page_reads_well_without_eyes() -> None:
    page = render({"news": NEWS, "faq": [text(1, 0.4, 0.3)]}, news=LABELS, faq=TEXTS)
    assert ("html", "lang", "en") in page.attributes
    assert page.tags["h1"] == 1
    assert page.tags["caption"] == page.tags["table"]
    assert page.tags["section"] == page.tags["h2"] == len(page.values("aria-labelledby"))
    assert set(page.values("aria-labelledby")) <= set(page.values("id"))
    assert page.values("role").count("img") == page.tags["svg"]
    assert len(page.values("scope")) == page.tags["th"]


def test_same_figures_give_the_same_page() -> None:
    assert render().html == render().html


def test_page_says_that_it_holds_rows() -> None:
    assert "contains text of rows" in render().text
