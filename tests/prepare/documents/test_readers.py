"""Documents of text: plain, Markdown, HTML and XML; and what all readers promise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.errors import InputError, Unusable
from finetune.prepare.documents import readers
from finetune.prepare.documents.readers import DOCUMENTS, read_document
from finetune.records import Document, Section


def read(name: str, text: str | bytes) -> Document:
    return read_document(text if isinstance(text, bytes) else text.encode(), name, name)


def reason_of(name: str, text: str) -> str:
    """Why a document cannot be used; "" if it can."""
    try:
        read(name, text)
    except Unusable as error:
        return error.reason
    return ""


def body(document: Document) -> str:
    return "\n\n".join(section.text for section in document.sections)


def whole(document: Document) -> str:
    parts = [document.title or "", *(f"{section.heading or ''} {section.text}" for section in document.sections)]
    return " ".join(" ".join(parts).split())


# --- plain text -------------------------------------------------------------------------------------------------------


def test_wrapped_lines_are_joined_and_short_ones_kept() -> None:
    lines = [
        "A leaflet was wrapped at about sixty characters, as mail",
        "programs do, and its paragraphs have a blank line after",
        "them.",
    ]
    address = ["Example Clinic", "1 High Street", "Exampleton"]
    text = "\n".join(lines) + "\n\n" + "\n".join(address) + "\n\n" + "\n".join(lines) + "\n"
    assert read("a.txt", text).sections[0].text.split("\n\n") == [" ".join(lines), "\n".join(address), " ".join(lines)]


def test_words_broken_over_lines_are_mended_and_compounds_kept() -> None:
    text = "The liver makes pro-\nteins, and long-term care is a long-\nterm task for the heal-\nthy and the sick alike here.\n"
    assert body(read("a.txt", text)) == (
        "The liver makes proteins, and long-term care is a long-term task for the healthy and the sick alike here."
    )


def test_running_heads_feet_and_page_numbers_of_pages_go() -> None:
    pages = [
        f"LEAFLET SERIES {12}\n\nText of page {name}.\n\n        Page {number} of 3\n"
        for number, name in enumerate(("one", "two", "three"), 1)
    ]
    assert body(read("a.txt", "\f".join(pages))) == "Text of page one.\n\nText of page two.\n\nText of page three."


@pytest.mark.parametrize(
    "sums", [("4512", "387", "1999"), ("Day 1", "Day 2", "Day 3"), ("2 of 9 rooms", "5 of 9 rooms", "1 of 9 rooms")]
)
def test_sums_at_the_foot_of_pages_are_text(sums: tuple[str, ...]) -> None:
    pages = [f"Text of page {name}.\n\n{line}\n" for name, line in zip(("one", "two", "three"), sums, strict=True)]
    document = read("a.txt", "\f".join(pages))
    assert [line for line in sums if line not in body(document)] == []
    assert document.unused == {}


def test_paragraph_that_runs_over_a_page_is_one() -> None:
    pages = [
        "HEAD\n\nthe disease may dest-\n\n   1\n",
        "HEAD\n\nroy the liver. It\n\n   2\n",
        "HEAD\n\nis rare.\n\n   3\n",
    ]
    assert body(read("a.txt", "\f".join(pages))) == "the disease may destroy the liver. It is rare."


def test_underlined_lines_capitals_and_questions_are_headings() -> None:
    text = "Fever\n=====\n\nIt is hot.\n\nSYMPTOMS\n\nOne shivers.\n\nIs it bad?\n\nNo.\n\nCare\n----\n\nRest.\n"
    assert read("a.txt", text) == Document(
        "Fever",
        (
            Section(None, 0, "It is hot."),
            Section("SYMPTOMS", 2, "One shivers."),
            Section("Is it bad?", 2, "No."),
            Section("Care", 2, "Rest."),
        ),
    )


def test_lists_keep_their_items() -> None:
    text = "Drink\n\n* water\n* tea, which should not\n  be too hot\n\n1. First\n2. Second\n"
    assert body(read("a.txt", text)) == "Drink\n\n- water\n- tea, which should not be too hot\n1. First\n2. Second"


def test_lines_drawn_as_a_table_are_kept() -> None:
    rows = ["drug          dose      times", "ibuprofen     200 mg    3", "aspirin       500 mg    2"]
    text = "\n".join(rows) + "\n\n" + ("A longer line of text that tells how wide the lines of it may be.\n" * 3)
    assert body(read("a.txt", text)).startswith("\n".join(rows))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_systems_are_alike(ends: str) -> None:
    assert read("a.txt", ends.join(["Fever", "=====", "", "Hot."])) == Document("Fever", (Section(None, 0, "Hot."),))


def test_binary_file_named_txt_is_refused() -> None:
    with pytest.raises(InputError, match=r"a\.txt is a binary file"):
        read("a.txt", b"\0\1\2\3" * 50)


# --- Markdown ---------------------------------------------------------------------------------------------------------

MARKDOWN = """---
title: "All about fever"
tags: [heat, care]
---

<!-- internal: do not publish -->
Text before. See [the page](https://example.org/a_(b)) and ![a thermometer](t.png)[^1].

Symptoms
--------

* **Heat**, as <https://example.org> says
* shivering

```sh
# this is no heading
* nor is this a list
```

## Doses ##

| drug | dose |
|------|-----:|
| one | [10 mg](x) |

<div class="note">Ask a <b>doctor</b>.</div>

[ref]: https://example.org
"""


def test_markdown_is_read_without_what_is_no_text() -> None:
    assert read("a.md", MARKDOWN) == Document(
        "All about fever",
        (
            Section(None, 0, "Text before. See the page and a thermometer[^1]."),
            Section(
                "Symptoms",
                2,
                "- Heat, as https://example.org says\n- shivering\n\n"
                "```sh\n# this is no heading\n* nor is this a list\n```",
            ),
            Section("Doses", 2, "| drug | dose |\n|------|-----:|\n| one | 10 mg |\n\nAsk a doctor."),
        ),
        {"field of the front matter": 1, "comment": 1, "link address": 3, "image": 1},
    )


def test_first_heading_is_the_title() -> None:
    assert read("a.markdown", "# Fever #\n\nHot.\n\n## Care\n\nRest.") == Document(
        "Fever", (Section(None, 0, "Hot."), Section("Care", 2, "Rest."))
    )


def test_rule_at_the_top_is_no_front_matter() -> None:
    assert body(read("a.md", "---\n\nText.\n\n---\n\nMore.")) == "Text.\n\nMore."


def test_comment_that_is_never_closed_hides_the_rest_only() -> None:
    assert body(read("a.md", "Text.\n\n<!-- never closed\n\nmore")) == "Text."


def test_markdown_made_to_take_long_is_read_in_time() -> None:
    for hostile in ("[" * 50_000, "![" * 30_000, "<" * 50_000, "<!--" * 20_000, "> " * 5_000 + "x", "*a " * 30_000):
        read("a.md", f"Text.\n\n{hostile}")


# --- HTML -------------------------------------------------------------------------------------------------------------

PARAGRAPH = (
    "Fever is a body temperature above the usual. It is a sign that the body fights an infection, and it goes away. "
)
PAGE = f"""<!DOCTYPE html><html><head><title>Fever | Example Portal</title><style>p {{ color: red }}</style>
<script>track("pageview")</script></head><body>
<div id="cookie-banner">We use cookies <button>Accept</button></div>
<header><nav><ul><li><a href="/">Home</a></li><li><a href="/b">Subscribe</a></li></ul></nav></header>
<main><h1>Fever</h1><p>{PARAGRAPH * 3}</p>
<h2>Symptoms</h2><ul><li>heat<ul><li>at night</li></ul></li><li>shivering &amp; <b>sweat</b></li></ul>
<table><tr><th>Drug</th><th>Dose</th></tr><tr><td>one</td><td>10 | 20 mg</td></tr></table>
<dl><dt>Is it bad?</dt><dd>{PARAGRAPH}</dd></dl>
<div style="display: none">hidden keywords</div><noscript>Turn on JavaScript</noscript>
<p hidden>also hidden</p><pre>a = 1
  b = 2</pre></main>
<aside><h3>You may also like</h3><p>Ten foods to try</p></aside>
<footer>All rights reserved.</footer></body></html>"""


def test_page_is_read_without_its_boilerplate() -> None:
    document = read("a.html", PAGE)
    text = whole(document)
    for boilerplate in ("cookies", "Home", "Subscribe", "pageview", "color", "hidden", "JavaScript", "foods", "rights"):
        assert boilerplate not in text
    assert [(section.heading, section.level) for section in document.sections] == [
        (None, 0),
        ("Symptoms", 2),
        ("Is it bad?", 3),
    ]
    assert document.title == "Fever"
    assert document.sections[1].text == (
        "- heat\n  - at night\n- shivering & sweat\n\n| Drug | Dose |\n| --- | --- |\n| one | 10 \\| 20 mg |"
    )
    assert "```\na = 1\n  b = 2\n```" in document.sections[2].text


def test_title_of_a_page_without_heading_is_that_of_the_page() -> None:
    assert read("a.html", f"<html><title>Fever | Portal</title><body><p>{PARAGRAPH * 5}").title == "Fever"


def test_fragment_without_body_is_taken_whole() -> None:
    assert read("a.html", "<h2>Care</h2>Rest<br>and tea.<p>Sleep.") == Document(
        None, (Section("Care", 2, "Rest\nand tea.\n\nSleep."),)
    )


def test_tags_left_open_are_closed() -> None:
    page = f"<html><body><h1>Fever<h2>What is it?<p>{PARAGRAPH * 3}<p>{PARAGRAPH}<h2>Is it bad?<p>{PARAGRAPH * 2}"
    document = read("a.htm", page)
    assert [section.heading for section in document.sections] == ["What is it?", "Is it bad?"]
    assert document.title == "Fever"


@pytest.mark.parametrize(
    ("codec", "declaration"),
    [
        ("latin-1", '<meta charset="iso-8859-1">'),
        ("cp1252", '<meta http-equiv="Content-Type" content="text/html; charset=windows-1252">'),
        ("cp1251", "<meta charset=windows-1251>"),
        ("utf-8", "<meta charset=no-such-thing>"),
        ("utf-16", ""),
        ("utf-8-sig", '<meta charset="latin-1">'),
    ],
)
def test_declared_encoding_is_used(codec: str, declaration: str) -> None:
    text = "при 50" if codec == "cp1251" else "at 50 °C"
    page = f"<html><head>{declaration}</head><body><p>{text} {PARAGRAPH * 3}</p></body></html>"
    assert body(read("a.html", page.encode(codec))).startswith(text)


def test_term_and_definition_stay_together() -> None:
    assert body(read("a.html", "<dl><dt>Pyrexia</dt><dd>Fever,\n in short.</dd></dl>")) == "Pyrexia\n: Fever, in short."


def test_layout_table_is_text() -> None:
    assert body(read("a.html", "<table><tr><td><p>One.</p><p>Two.</p></td></tr></table>")) == "One.\n\nTwo."


def test_xhtml_with_a_declaration_is_read() -> None:
    page = '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>Été.</p></body></html>'
    assert body(read("a.xhtml", page)) == "Été."


def test_page_nested_without_end_is_refused_or_read() -> None:
    for tag in ("div", "ul><li", "table><tr><td", "b", "dl><dd", "h1"):
        assert reason_of("a.html", "<html><body>" + f"<{tag}>" * 20_000 + "text") in {"", "too_deep", "no_text"}


# --- XML --------------------------------------------------------------------------------------------------------------


def test_xml_titles_are_headings_and_text_is_paragraphs() -> None:
    xml = """<?xml version="1.0"?><article><article-title>Fever</article-title><id>12345</id><sec><title>Signs</title>
    <p>It is <i>hot</i>, CO<sub>2</sub> rises.</p><list><item>one</item><item><p>two</p></item></list></sec>
    <sec><title>Care</title><para>Rest.</para></sec><ref-list><ref>Smith 2011</ref></ref-list></article>"""
    assert read("a.xml", xml) == Document(
        "Fever",
        (Section("Signs", 2, "It is hot, CO₂ rises.\n\n- one\n- two"), Section("Care", 2, "Rest.")),
        {"<id>": 1, "<ref-list>": 1},
    )


def test_questions_and_answers_in_xml_are_sections() -> None:
    xml = "<Document><QAPair><Question>Is it bad?</Question><Answer>No, it is not.</Answer></QAPair></Document>"
    assert read("a.xml", xml).sections[-1].text == "No, it is not."


BILLION_LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a0 "lol">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    + "]><lolz>&a9;</lolz>"
)
OTHER_FILE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><p>text &x;</p></a>'


@pytest.mark.parametrize("xml", [BILLION_LAUGHS, OTHER_FILE, OTHER_FILE.replace("!ENTITY x", "!ENTITY % x")])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_xml_entities_are_refused(xml: str, codec: str) -> None:
    with pytest.raises(Unusable) as caught:
        read("a.xml", xml.encode(codec))
    assert caught.value.reason == "xml_entities"


@pytest.mark.parametrize("xml", ["<a><b></a>", "text", "<a>&nosuch;</a>", "<a" + "><a" * 3000 + "/>"])
def test_broken_xml_is_refused(xml: str) -> None:
    with pytest.raises(Unusable) as caught:
        read("a.xml", xml)
    assert caught.value.reason == "damaged_xml"


# --- all readers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.xml", "a.TXT"])
@pytest.mark.parametrize("data", [b"", b" \n\t\r\n ", b"\xef\xbb\xbf"])
def test_file_without_text_says_so(name: str, data: bytes) -> None:
    with pytest.raises(Unusable) as caught:
        read(name, data)
    assert caught.value.reason in {"no_text", "damaged_xml"}


@pytest.mark.parametrize("name", [f"a{suffix}" for suffix in DOCUMENTS])
def test_file_too_large_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_BYTES", 10)
    with pytest.raises(Unusable) as caught:
        read(name, "x" * 11)
    assert caught.value.reason == "too_large"


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), name=st.sampled_from([f"a{suffix}" for suffix in DOCUMENTS]))
def test_any_bytes_are_a_document_or_refused(data: bytes, name: str) -> None:
    try:
        document = read(name, data)
    except (Unusable, InputError):
        return
    assert any(section.text.strip() for section in document.sections)


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            ["word ", "\n", "\n\n", "- ", "# ", "<p>", "</p>", "<li>", "<h2>", "|", "```\n", ": ", "<!--", "\f"]
        ),
        max_size=40,
    ),
    name=st.sampled_from(["a.txt", "a.md", "a.html"]),
)
def test_reading_twice_gives_the_same(pieces: list[str], name: str) -> None:
    text = "text " + "".join(pieces)
    if not reason_of(name, text):
        assert read(name, text) == read(name, text)
