"""Rows before and after cleaning, read again from their sources: changed ones first, scrubbed, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.cli.render.comparison import render_comparison
from finetune.errors import InputError
from finetune.prepare.compare import compare_cleaning

from ..command import run
from .conftest import Preparer, write_jsonl

ROWS = [
    {"text": "A plain row of text stays as it is."},
    {"text": "The  old  lamp &amp; its glass stand on the shelf of ada@quill.example.\r\nCafe\u0301\u200b is shut.  "},
]


def test_rows_that_cleaning_changed_come_first_and_are_scrubbed(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    corpus = prepared(source).corpus.path
    before = sorted((path, path.stat().st_mtime_ns) for path in corpus.rglob("*"))
    comparison = compare_cleaning(corpus, [str(source)], samples=2)
    assert (comparison.changed, [row.id for row in comparison.rows]) == (1, ["rows/rows.jsonl:2", "rows/rows.jsonl:1"])
    changed = comparison.rows[0]
    assert changed.before[0].content == str(ROWS[1]["text"]).replace("ada@quill.example", "[EMAIL]")
    assert changed.after[0].content == "The old lamp & its glass stand on the shelf of [EMAIL].\nCafé is shut."
    assert sorted((path, path.stat().st_mtime_ns) for path in corpus.rglob("*")) == before


def test_the_terminal_shows_what_is_not_visible(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    text = render_comparison(compare_cleaning(prepared(source).corpus.path, [str(source)]))
    assert "- Cafe\\u0301\\u200b is shut.··" in text
    assert "+ Café is shut." in text
    assert "unchanged" in text


def test_documents_and_mapped_columns_are_read_as_the_corpus_was(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"body": "Two  blanks of this text go away."}])
    (tmp_path / "lamp.md").write_text("# Lamp\n\nThe oﬃce has a lamp.\n", "utf-8")
    corpus = prepared(source, columns={"text": "body"}).corpus.path
    assert compare_cleaning(corpus, [str(source)]).changed == 1
    document = prepared(tmp_path / "lamp.md").corpus.path
    (row,) = compare_cleaning(document, [str(tmp_path / "lamp.md")]).rows
    assert (row.before[0].content, row.after[0].content) == (
        "# Lamp\n\nThe oﬃce has a lamp.",
        "# Lamp\n\nThe office has a lamp.",
    )


def test_the_files_must_be_named(prepared: Preparer, tmp_path: Path) -> None:
    corpus = prepared(write_jsonl(tmp_path / "rows.jsonl", ROWS)).corpus.path
    with pytest.raises(InputError, match="--diff --source FILE"):
        compare_cleaning(corpus)


@pytest.mark.parametrize("coding", ["utf-8", "ascii"])
def test_command_shows_the_rows_on_any_terminal(coding: str, prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ROWS)
    asked = ("show", prepared(source).corpus.path, "--diff", "--source", source, "--samples", 1)
    done = run(*asked, cwd=tmp_path, env={"PYTHONIOENCODING": coding})
    assert done.returncode == 0, done.stderr
    assert ("+ Café" in done.stdout) == (coding == "utf-8")
    (row,) = json.loads(run(*asked, "--json", cwd=tmp_path).stdout)["rows"]
    assert row["id"] == "rows/rows.jsonl:2"
