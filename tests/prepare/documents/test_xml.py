"""Text of XML files: all of it comes out or is counted."""

from __future__ import annotations

import pytest

from finetune.prepare.documents.readers import read_document

FEED = """<rss><channel><title>Mill news</title><item><title>The wheel turns</title><description>&lt;p&gt;In brief.&lt;/p&gt;
</description><encoded><![CDATA[<p>The wheel <b>turns</b> again.</p><ul><li>It is new.</li></ul>]]></encoded>
<pubDate>Mon, 04 Nov 2030 08:00:00 GMT</pubDate></item><item><description>All in one &lt;b&gt;line&lt;/b&gt;.</description>
</item></channel></rss>"""
GOLDEN = {
    "text of the root": ("<note>The whole note is here.</note>", "The whole note is here.", {}),
    "text around parts": (
        "<doc>The weir of <b>Oldbrook</b> is <i>old</i>.<p>It leaks.</p>Nobody minds.</doc>",
        "The weir of Oldbrook is old. ¶ It leaks. ¶ Nobody minds.",
        {},
    ),
    "paragraph in a paragraph": (
        "<doc><sec>Before <em>it</em><p>Inside</p>after</sec></doc>",
        "Before it ¶ Inside ¶ after",
        {},
    ),
    "line break": ("<doc><p>The wheel<lb/>turns.</p></doc>", "The wheel turns.", {}),
    "title in a sentence": ("<doc><p>She read <title>The Weir</title> twice.</p></doc>", "She read The Weir twice.", {}),
    "answers of one word": (
        "<faq><question>How many?</question><answer>9</answer><country>Chile</country><size>7 </size></faq>",
        "How many? ¶ 9",
        {"<country>": 1, "<size>": 1},
    ),
    "feed": (
        FEED,
        "Mill news ¶ The wheel turns ¶ The wheel turns again. ¶ - It is new. ¶ All in one line.",
        {"<description> beside <encoded>": 1, "<pubdate>": 1},
    ),
    "code": ("<doc><programlisting>if a:\n    b</programlisting></doc>", "```\nif a:\n    b\n```", {}),
    "table of rows and entries": (
        "<table><title>Pins</title><tgroup><row><entry>a</entry><entry>b</entry></row></tgroup></table>",
        "Pins ¶ | a | b |\n| --- | --- |",
        {},
    ),
    "list with more than items": ("<doc><list>Bring:<item>a lamp</item></list></doc>", "Bring: ¶ a lamp", {}),
    "exponents and formulas": (
        "<doc><p>10<sup>4</sup> m, <math><msup><mi>x</mi><mn>2</mn></msup></math></p></doc>",
        "10⁴ m, x²",
        {},
    ),
    "comment and attribute": (
        "<doc><p hint='not to be read'>Text.<!-- remark --> More.</p></doc>",
        "Text. More.",
        {"comment": 1, "attribute with text": 1},
    ),
    "page": ("<html><body><nav>x</nav><p>A page of its own.</p></body></html>", "A page of its own.", {"navigation": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("xml", "expected", "unused"), GOLDEN.values(), ids=GOLDEN)
def test_text_comes_out_or_is_counted(xml: str, expected: str, unused: dict[str, int]) -> None:
    document = read_document(xml.encode(), "a.xml", "a.xml")
    parts = [document.title or ""]
    parts += [part for section in document.sections for part in (section.heading or "", section.text)]
    assert "\n\n".join(filter(None, parts)) == expected.replace(" ¶ ", "\n\n")
    assert document.unused == unused
