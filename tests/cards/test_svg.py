"""Figures inside a page: the page's colours and font, ids of their own, and text that stays text."""

from __future__ import annotations

import re

from matplotlib.axes import Axes

from finetune.cards.svg import BAR, draw_svg


def draw(name: str, text: str = "text") -> str:
    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [1, 2], "o-", color=BAR)
        axes.text(0, 1, text)

    return draw_svg((300, 200), paint, name, f"A line: {text}")


def test_colors_and_font_are_the_page_s() -> None:
    svg = draw("one")
    assert "var(--bar)" in svg
    assert re.findall(r"#[0-9a-f]{6}\b|font-family|https?:|<style|<metadata", svg) == []


def test_ids_are_unique_on_the_page_and_their_references_hold() -> None:
    one, two = draw("one"), draw("two")
    ids = [re.findall(r'id="([^"]+)"', svg) for svg in (one, two)]
    assert not set(ids[0]) & set(ids[1])
    for svg, names in zip((one, two), ids, strict=True):
        references = {first or second for first, second in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)}
        assert references == set(names) != set()


def test_text_is_neither_markup_nor_mathematics() -> None:
    svg = draw("one", "<b> $x^2$ \u80a1 \x1b&")
    assert "&lt;b&gt; $x^2$ \u80a1 &amp;" in svg


def test_same_figure_gives_the_same_bytes() -> None:
    assert draw("one") == draw("one")
