"""The pages in a real browser: nothing fetched, nothing complained about, nothing wider than a telephone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.evaluate.details import ClassScore

from ..browser import CHROMIUM, FAINT, OVERFLOW, Browser
from ..command import run
from .page import Page
from .test_eval_page import FORGETTING, GAIN, LABELS, TEXTS, label, render, text

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")]

HEADINGS = {
    "report": [
        "Did it help?",
        "Scores",
        "news",
        "Which labels are confused",
        "Rows to read",
        "How training went",
        "Where it comes from",
    ],
    "crowd": ["Scores", "news", "faq", "Label by label", "Rows to read", "What was forgotten", "Where it comes from"],
    "corpus": ["Splits", "Sources", "Tasks", "Labels", "Lengths", "What was left out"],
}
VISIBLE = (
    "[...document.querySelectorAll('h1, h2, h3')].filter(each => each.checkVisibility()).map(each => each.innerText)"
)
VISIBLE_ROWS = "[...document.querySelectorAll('.rows > li')].filter(row => row.checkVisibility())"


@pytest.fixture(scope="module")
def pages(tiny_corpus: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a corpus that `prepare` wrote, and the report of `slmtune eval` on it."""
    folder = tmp_path_factory.mktemp("pages")
    words = ("eval", tiny_adapter, "--corpus", tiny_corpus, "--output-dir", folder / "eval", "--max-new-tokens", 8)
    done = run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    crowd = folder / "crowd.html"
    crowd.write_text(render_crowd().html, "utf-8")
    return {"report": folder / "eval" / "report.html", "crowd": crowd, "corpus": tiny_corpus / "corpus.html"}


def render_crowd() -> Page:
    """A report with five contestants, 77 labels with long names, and everything else that a report can have."""
    names = [
        "few_shot",
        "llama-3.2-1b-instruct-q4_k_m.gguf",
        "http://127.0.0.1:8080/v1/models/a-model-with-a-long-name",
    ]
    labels = [f"a label with a rather long name, number {number}" for number in range(77)]
    classes = tuple(ClassScore(each, 2, 1, 1, 1.0, 0.5, 2 / 3) for each in labels)
    rows = [label(number, each, labels[0], labels[number // 2]) for number, each in enumerate(labels)]
    rows = [replace(row, answers={**row.answers, **dict.fromkeys(names, row.base)}) for row in rows]
    score = replace(
        LABELS,
        few_shot=LABELS.base,
        vs=dict.fromkeys(names[1:], LABELS.base),
        comparisons=dict.fromkeys(["base", *names], GAIN),
        details=dict.fromkeys(["base", *names, "adapter"], replace(LABELS.details["adapter"], classes=classes)),
        absent={"an-adapter-of-another-domain": "it knows other labels"},
    )
    answers = {"news": rows, "faq": [text(1, 0.4, 0.3), text(2, 0.1, 0.9)]}
    return render(answers, forgetting=FORGETTING, news=score, faq=TEXTS)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 25 rows, one of which is hostile."""
    rows = [label(number, *("down", "up", "down") if number % 2 else ("up", "down", "up")) for number in range(10, 34)]
    evil = "</p><img src=x onerror='window.harm = 1'><script>window.harm = 1</script>"
    rows.append(replace(label(34, "up", "up", "down"), prompt=evil, id=evil))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render({"news": rows}).html, "utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
@pytest.mark.parametrize("name", HEADINGS)
def test_page_is_whole_in_a_browser(
    browser: Browser, pages: dict[str, Path], name: str, width: int, height: int, dark: bool
) -> None:
    visit = browser.open(pages[name], width=width, height=height, dark=dark)
    headings = visit.evaluate(VISIBLE)
    assert [heading for heading in HEADINGS[name] if heading not in headings] == []
    assert visit.evaluate(OVERFLOW) <= 0
    assert visit.evaluate(FAINT) == []
    assert visit.requests == [pages[name].as_uri()]
    assert visit.errors == []


@pytest.mark.parametrize("name", HEADINGS)
def test_page_has_a_dark_face(browser: Browser, pages: dict[str, Path], name: str) -> None:
    colors = [
        browser.open(pages[name], width=390, height=844, dark=dark).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for dark in (False, True)
    ]
    assert colors[0] != colors[1]


def test_search_and_filters_hide_the_other_rows(browser: Browser, report: Path) -> None:
    visit = browser.open(report, width=1280, height=900)

    def fill(name: str, value: str) -> list[str]:
        """The ids of the rows that are left after a filter is set."""
        field = f"document.querySelector('[data-filter={name}]')"
        visit.evaluate(
            f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))"
        )
        ids: list[str] = visit.evaluate(f"{VISIBLE_ROWS}.map(row => row.querySelector('.soft').innerText)")
        return ids

    assert fill("words", "wor 17 ROW") == []
    assert fill("words", "17 ROW") == ["news/17"]
    assert visit.evaluate("document.querySelector('output').innerText") == "1 of 1 rows"
    assert len(fill("words", "")) == 10
    assert len(fill("kind", "lost")) == 1
    assert fill("kind", "won") == [f"news/{number}" for number in range(10, 20)]
    assert fill("label", "0") == [f"news/{number}" for number in range(11, 30, 2)]
    assert visit.errors == []


def test_more_rows_are_shown_on_demand(browser: Browser, report: Path) -> None:
    visit = browser.open(report, width=390, height=844)
    visible = f"{VISIBLE_ROWS}.length"
    assert visit.evaluate(visible) == 10
    visit.evaluate("document.querySelector('.more').click()")
    assert visit.evaluate(visible) == 20
    visit.evaluate("document.querySelector('.more').click()")
    assert visit.evaluate(visible) == 25
    assert not visit.evaluate("document.querySelector('.more').checkVisibility()")


def test_text_of_a_row_never_runs(browser: Browser, report: Path) -> None:
    visit = browser.open(report, width=390, height=844)
    assert "onerror" in visit.evaluate("document.body.innerText")
    assert visit.evaluate("document.querySelectorAll('img').length") == 0
    assert visit.evaluate("window.harm") is None
    assert visit.requests == [report.as_uri()]
    visit.evaluate("""document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="window.harm = 1">')""")
    script = "document.createElement('script')"
    visit.evaluate(f"document.body.append(Object.assign({script}, {{textContent: 'window.harm = 2'}}))")
    assert visit.evaluate("window.harm") is None  # the policy of the page forbids what is not its own script


def test_browser_sees_what_it_is_asked_about(browser: Browser, tmp_path: Path) -> None:
    """A page with every fault that the tests above look for."""
    faulty = '<p style="width: 900px; color: #ccc; background: #fff">Faint<img src="http://127.0.0.1:9/">'
    (tmp_path / "faulty.html").write_text(f"{faulty}<script>console.error(1); x()</script>", "utf-8")
    visit = browser.open(tmp_path / "faulty.html", width=390, height=844)
    assert visit.evaluate(OVERFLOW) > 0
    assert len(visit.evaluate(FAINT)) == 1
    assert visit.requests[1:] == ["http://127.0.0.1:9/"]
    assert len(visit.errors) >= 2
