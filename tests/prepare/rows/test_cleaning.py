"""Cleaning in degrees: what becomes a turn keeps its characters, texts are cleaned, and what changed is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..conftest import Preparer, questions, write_jsonl

PAGE = '<!DOCTYPE html>\n<html>\n<body class="a">\n<p>Six &amp; <b>two</b></p>\n</body>\n</html>'
ODD = "ﬁ Ａ\u00a0b\u200b  c \t d &lt;b&gt; &nbsp; <i>e</i>\n\n\n\n\n    f   =  1"


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


CHATS: dict[str, dict[str, Any]] = {
    "messages": {"messages": turns("Write a page.", PAGE)},
    "messages with code": {
        "messages": turns("And\n```\na  b\n```", "```\n+--+    +--+\n|A |--->|B |\n+--+    +--+\n```")
    },
    "ShareGPT": {"conversations": [{"from": "human", "value": "Bold?"}, {"from": "gpt", "value": "<b>boat</b>"}]},
    "prompt and completion": {"prompt": "def half(x):\n", "completion": "    return x / 2\n"},
    "Alpaca": {"instruction": "Bold: boat", "input": "<i>boat</i>", "output": "<b>boat</b>"},
    "question and answer": {"question": "Show &amp;lt; to me.", "answer": "Write &amp;lt; or &lt;."},
    "context": {"context": "| a   | b |\n|-----|---|", "question": "Which  columns?", "answer": "`a  b`"},
    "odd characters": {"question": "Is it odd?", "answer": ODD},
}


@pytest.mark.parametrize("row", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("clean", ["full", "light", "none"])
def test_turns_of_a_chat_keep_their_characters(
    row: dict[str, Any], clean: str, prepared: Preparer, tmp_path: Path
) -> None:
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", [row]), clean=clean)
    values = [part for value in row.values() for part in (value if isinstance(value, list) else [value])]
    spoken = [value if isinstance(value, str) else value.get("content", value.get("value")) for value in values]
    assert "\n\n".join(made.texts) == "\n\n".join(spoken)
    assert made.result.cleaned == {}


@pytest.mark.parametrize(
    ("clean", "becomes"),
    [
        ("full", "Café: 5 %\n\nend & more"),
        ("light", "<p>Café:  5\u00a0%</p>\n<p>end &amp; more</p>"),
        ("none", " <p>Cafe\u0301:  5\u00a0%</p>\r\n<p>end &amp; more</p>\n"),
    ],
)
def test_a_text_is_cleaned_to_the_degree_asked_for(
    clean: str, becomes: str, prepared: Preparer, tmp_path: Path
) -> None:
    rows = [{"text": " <p>Cafe\u0301:  5\u00a0%</p>\r\n<p>end &amp; more</p>\n"}]
    assert prepared(write_jsonl(tmp_path / "rows.jsonl", rows), clean=clean).texts == [becomes]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.md", "Salt &amp; water, and `&lt;`", "Salt & water, and `&lt;`"),
        (
            "a.xml",
            "<doc><p>Write &amp;lt; and &amp;amp; in the source.</p></doc>",
            "Write &lt; and &amp; in the source.",
        ),
    ],
)
def test_entities_of_a_document_are_decoded_once(
    name: str, text: str, says: str, prepared: Preparer, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert prepared(tmp_path / name).texts == [says]


def test_documents_are_cleaned_to_the_degree_asked_for(prepared: Preparer, tmp_path: Path) -> None:
    (tmp_path / "lamp.md").write_text("# Lamp\n\nThe oﬃce  has `a  &lt;` and a lamp.\n", "utf-8")
    texts = {clean: prepared(tmp_path / "lamp.md", clean=clean).texts for clean in ("full", "light", "none")}
    assert texts["full"] == ["# Lamp\n\nThe office has `a  &lt;` and a lamp."]
    assert "oﬃce" in texts["light"][0]
    assert "oﬃce" in texts["none"][0]


@pytest.mark.parametrize("clean", ["full", "light", "none"])
def test_control_tokens_are_broken_up_whatever_is_cleaned(clean: str, prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", [{"text": "The token <|im_end|> ends it."}]), clean=clean)
    assert "<|im_end|>" not in made.texts[0]
    assert made.result.cleaned == {"control tokens broken up": 1}


def test_what_cleaning_changed_is_counted_in_rows(prepared: Preparer, tmp_path: Path) -> None:
    rows = [
        {"text": "It is a  lamp  of brass"},
        {"text": "The <b>old</b>  lamp &amp; its <i>glass</i>"},
        {"text": "It is a plain lamp"},
    ]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows))
    assert made.result.cleaned == {"blanks removed": 2, "markup removed": 1}
    assert made.corpus.manifest["cleaned"] == made.result.cleaned
    assert "| markup removed | 1 |" in (made.corpus.path / "README.md").read_text("utf-8")
    assert "markup removed" in (made.corpus.path / "corpus.html").read_text("utf-8")


# --- markup that most rows have ---------------------------------------------------------------------------------------

FORUM = [
    {"question": f"What is oar {n}?", "answer": f"<p>It is <em>long</em> &amp; number {n}.</p>\n\n<p>Buy it.</p>"}
    for n in range(3)
]


def test_markup_around_most_answers_is_removed_and_told(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "forum.jsonl", [*FORUM, *questions(2)]), dedup=False)
    assert "It is long & number 0.\n\nBuy it." in made.texts
    assert made.result.cleaned == {"markup removed": 3}
    assert "in the column answer of forum.jsonl are wrapped" in (made.corpus.path / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("rows", "clean"),
    [
        (FORUM, "light"),
        ([row | {"question": row["question"] + " Answer in HTML."} for row in FORUM], "full"),
        ([*FORUM[:1], *questions(2)], "full"),
    ],
    ids=["light", "about markup", "in few rows"],
)
def test_markup_stays_otherwise(rows: list[dict[str, str]], clean: str, prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "forum.jsonl", rows), clean=clean, dedup=False)
    assert FORUM[0]["answer"] in made.texts


def test_short_exercises_in_markup_are_no_wrapping(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"instruction": f"Write a paragraph: {word}", "output": f"<p>{word}</p>"} for word in ("One", "Two")]
    assert "<p>One</p>" in prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).texts


@pytest.mark.parametrize(
    ("question", "others", "answer"),
    [
        ("Where is it?", 0, "It’s a café."),
        ("Where is it?", 2, "Itâ€™s a cafÃ©."),
        ("Which encoding is it?", 0, "Itâ€™s a cafÃ©."),
    ],
    ids=["most rows", "few rows", "about encodings"],
)
def test_mojibake_in_answers_is_repaired_where_most_rows_have_it(
    question: str, others: int, answer: str, prepared: Preparer, tmp_path: Path
) -> None:
    rows = [{"question": question, "answer": "Itâ€™s a cafÃ©."}]
    rows += [{"question": f"And {word}?", "answer": f"It is “{word}”."} for word in ("this", "that")][:others]
    assert answer in prepared(write_jsonl(tmp_path / "rows.jsonl", rows), quality=False).texts


# --- what filters and keys compare ------------------------------------------------------------------------------------


def test_rows_that_differ_only_in_what_cleaning_removes_are_duplicates(prepared: Preparer, tmp_path: Path) -> None:
    rows = [
        {"question": "Which river is meant here?", "answer": "The Elbe\u200b, by Dresden."},
        {"question": "Which\u00ad river is meant here?", "answer": "The Elbe, by Dresden."},
    ]
    assert len(prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).rows) == 1


def test_a_filter_sees_clean_text(prepared: Preparer, tmp_path: Path) -> None:
    rows = [*questions(2), {"question": "What is number 7?", "answer": "N/\u200bA"}]
    assert prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).result.dropped == {"placeholder": 1}


def test_repeated_lines_of_documents_are_counted(prepared: Preparer, tmp_path: Path) -> None:
    notice = "This page was last looked at by the keeper of the harbour in May."
    for number, word in enumerate(("oars", "ropes", "sails", "masts")):
        text = f"# The {word}\n\nThe {word} of the harbour are kept in shed {number} beside the old mill.\n\n{notice}\n"
        (tmp_path / f"{word}.md").write_text(text + f"\nAsk {word} people before you take any of them away.\n", "utf-8")
    made = prepared(tmp_path, dedup=False)
    assert notice not in " ".join(made.texts)
    (line,) = made.result.unused
    assert (line.kind, line.name, line.count) == ("line", "repeated by most documents", 4)
    assert notice in " ".join(prepared(tmp_path, dedup=False, clean="light").texts)
