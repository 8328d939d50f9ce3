"""The pages in a real browser: nothing fetched, nothing complained about, nothing wider than a telephone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..browser import CHROMIUM, Browser
from ..command import run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")]

HEADINGS = {
    "report": [
        "Did it help?",
        "Scores",
        "news",
        "Which labels are confused",
        "How training went",
        "Where it comes from",
    ],
    "corpus": ["Splits", "Sources", "Tasks", "Labels", "Lengths", "What was left out"],
}
VISIBLE = (
    "[...document.querySelectorAll('h1, h2, h3')].filter(each => each.checkVisibility()).map(each => each.innerText)"
)
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"
# Texts whose contrast with their background is below the 4.5 of WCAG 2.2, level AA. A canvas turns any color into bytes.
FAINT = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const bytes = color => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = color => {
    const [red, green, blue] = [...bytes(color)].map(byte => byte / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = element => {
    while (element && bytes(getComputedStyle(element).backgroundColor)[3] === 0) element = element.parentElement;
    return getComputedStyle(element ?? document.body).backgroundColor;
  };
  return [...document.body.querySelectorAll("*")]
    .filter(each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
    .filter(each => each.checkVisibility() && !each.closest("svg"))
    .filter(each => {
      const [low, high] = [getComputedStyle(each).color, behind(each)].map(luminance).sort((one, two) => one - two);
      return (high + 0.05) / (low + 0.05) < 4.5;
    })
    .map(each => each.outerHTML.slice(0, 100));
})()
"""


@pytest.fixture(scope="module")
def pages(tiny_corpus: Path, tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a corpus that `prepare` wrote, and the report of `slmtune eval` on it."""
    folder = tmp_path_factory.mktemp("pages")
    words = ("eval", tiny_adapter, "--corpus", tiny_corpus, "--output-dir", folder / "eval", "--max-new-tokens", 8)
    done = run(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {"report": folder / "eval" / "report.html", "corpus": tiny_corpus / "corpus.html"}


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


def test_browser_sees_what_it_is_asked_about(browser: Browser, tmp_path: Path) -> None:
    """A page with every fault that the tests above look for."""
    faulty = '<p style="width: 900px; color: #ccc; background: #fff">Faint<img src="http://127.0.0.1:9/">'
    (tmp_path / "faulty.html").write_text(f"{faulty}<script>console.error(1); x()</script>", "utf-8")
    visit = browser.open(tmp_path / "faulty.html", width=390, height=844)
    assert visit.evaluate(OVERFLOW) > 0
    assert len(visit.evaluate(FAINT)) == 1
    assert visit.requests[1:] == ["http://127.0.0.1:9/"]
    assert len(visit.errors) >= 2
