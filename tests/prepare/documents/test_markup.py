"""Tables, lists, exponents and line ends of HTML, as they come out in Markdown."""

from __future__ import annotations

import pytest

from finetune.prepare.documents.readers import read_document

GOLDEN = {
    "exponents": (
        "<p>10<sup>2</sup> m, CO<sub>2</sub>, x<sup>k+1</sup>, the 5<sup>th</sup>",
        "10² m, CO₂, x^(k+1), the 5th",
    ),
    "exponent in a list": ("<ul><li>area in m<sup>2</sup></ul>", "- area in m²"),
    "exponent in a heading": ("<p>a<h2>The 10<sup>3</sup> rule</h2><p>b", "a ¶ ## The 10³ rule ¶ b"),
    "number of a note": ("<p>Pumps<sup><a href='#n'>[2]</a></sup> leak.<sup>3</sup>", "Pumps[2] leak.³"),
    "cell over two rows": (
        "<table><tr><th>Pin<th>Use<th>Way<tr><td>1<td rowspan=2>Signal<td>in<tr><td>2<td>out<tr><td>3<td>Earth<td>-</table>",
        "| Pin | Use | Way |\n| --- | --- | --- |\n| 1 | Signal | in |\n| 2 | Signal | out |\n| 3 | Earth | - |",
    ),
    "cell over two columns": (
        "<table><tr><th>Pin<th colspan=2>Use<tr><td>1<td>Power<td>5 V</table>",
        "| Pin | Use |  |\n| --- | --- | --- |\n| 1 | Power | 5 V |",
    ),
    "cell over two rows and columns": (
        "<table><tr><td colspan=2 rowspan=2>A<td>b<tr><td>c<tr><td>d<td>e<td>f</table>",
        "| A |  | b |\n| --- | --- | --- |\n| A |  | c |\n| d | e | f |",
    ),
    "cell over all rows": (
        "<table><tr><td rowspan=0>A<td>b<tr><td>c</table>",
        "| A | b |\n| --- | --- |\n| A | c |",
    ),
    "rows in a form": (
        "<table><form><tr><td>a<td>b</tr></form><tr><td>c<td>d</table>",
        "| a | b |\n| --- | --- |\n| c | d |",
    ),
    "code in a table": (
        "<table><tr><td>Loop<td><pre>for x in y:\n  use(x)</pre></table>",
        "Loop ¶ ```\nfor x in y:\n  use(x)\n```",
    ),
    "code in a list": (
        "<ol><li>Write<pre>if a:\n    b</pre>and run it.<li>Stop.</ol>",
        "1. Write ¶    ```\n   if a:\n       b\n   ``` ¶    and run it. ¶ 2. Stop.",
    ),
    "lines of code": ("<pre>a = 1<br>  <b>b</b> = 2\nc</pre>", "```\na = 1\n  b = 2\nc\n```"),
    "text beside items": ("<ul>Bring<li>a lamp</li>and<li>a rope</ul>", "- Bring\n- a lamp\n- and\n- a rope"),
    "definitions with more than pairs": (
        "<dl><p>Terms</p><dt>Jig<dd>A guide.</dd><dd>A dance.</dd><dt>Loop<dd><pre>for a:\n  b</pre></dl>",
        "Terms ¶ Jig\n: A guide. ¶ A dance. ¶ Loop ¶ ```\nfor a:\n  b\n```",
    ),
    "Chinese over two lines": ("<p>古い灯台は\n港の<b>岩</b>\nの上 に\nABC", "古い灯台は港の岩の上 に ABC"),
    "Korean over two lines": ("<p>등대는\n항구에 있다", "등대는 항구에 있다"),
}


@pytest.mark.parametrize(("page", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_text_of_a_page_comes_out_as_a_reader_sees_it(page: str, expected: str) -> None:
    document = read_document(page.encode(), "a.html", "a.html")
    blocks = [
        part for section in document.sections for part in (section.heading and f"## {section.heading}", section.text)
    ]
    assert "\n\n".join(filter(None, blocks)) == expected.replace(" ¶ ", "\n\n")


def test_cells_over_many_rows_and_columns_take_no_memory() -> None:
    cells = "<td colspan=999999 rowspan=999999>a" * 2000
    assert read_document(f"<table><tr>{cells}<tr>{cells}</table>".encode(), "a.html", "a.html").sections
