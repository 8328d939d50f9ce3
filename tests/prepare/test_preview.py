"""A dry run reads the first rows as `prepare` does, tells what it would make of them, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.cli.render.preview import render_preview
from finetune.prepare import PrepareRequest
from finetune.prepare import preview as module
from finetune.prepare.preview import Preview, preview
from finetune.prepare.rows.survey import LOOKED_AT
from finetune.recipe import DEFAULT_MODEL

from ..command import run
from .conftest import Preparer, questions, write_jsonl

REVIEWS = """\
text,mood,date
"The lamp is bright, and its switch works.",good,2024-01-02
"The shelf broke after two days of care.",bad,2024-01-03
Write to ada@quill.example for one more lamp.,bad,
!!!,bad,
"""
SHOWN = """\
reviews  (1 file, licence unknown)

  files      reviews.csv
  read as    classification
  looked at  4 rows, kept 3 rows
  columns    label=mood, text  (--map NAME=COLUMN)
  encoding   utf-8  (--encoding NAME)
  labels     bad, good  (--map label=COLUMN)
  dropped    no_letters 1  (--no-quality)
  not used   column date (2 of 4 rows)  (--map, --ignore)
  scrubbed   EMAIL 1  (--no-scrub)

  reviews/reviews.csv:2
    system: Which label fits this text?
    Answer with one of: bad, good.
    user: The lamp is bright, and its switch works.
    assistant: ⟦good⟧
"""


def look(tmp_path: Path, *sources: Path, **options: Any) -> Preview:
    return preview(PrepareRequest(tmp_path / "corpus", sources=tuple(map(str, sources)), **options))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding)
    return path


def test_each_fact_is_shown_with_the_option_that_changes_it(tmp_path: Path) -> None:
    before = write(tmp_path / "in" / "reviews.csv", REVIEWS)
    text = render_preview(look(tmp_path, before, columns={"label": "mood"}))
    assert SHOWN in text
    assert list(tmp_path.rglob("*")) == [before.parent, before]


def test_with_a_tokenizer_rows_are_shown_as_the_model_sees_them(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", questions(1))
    (tmp_path / DEFAULT_MODEL).symlink_to(tiny_model)  # a folder takes precedence over the preset of its name
    monkeypatch.chdir(tmp_path)
    shown = look(tmp_path, source)
    assert shown.model == DEFAULT_MODEL
    assert "    <|im_start|>assistant\n    ⟦It is 0.<|im_end|>⟧" in render_preview(shown)


def test_the_rows_are_those_of_the_corpus(tmp_path: Path, prepared: Preparer) -> None:
    source = write(tmp_path / "reviews.csv", REVIEWS)
    ((group,),) = [each.groups for each in look(tmp_path, source, columns={"label": "mood"}).sources]
    rows = {row.id: row.messages for row in prepared(source, columns={"label": "mood"}).rows}
    assert {row.id: row.messages for row in group.rows} == rows


def test_files_that_are_read_alike_are_shown_as_one(tmp_path: Path) -> None:
    for number in range(3):
        write_jsonl(tmp_path / "in" / f"part-{number}.jsonl", questions(2, number))
    write(tmp_path / "in" / "notes.csv", "text\nDer Müller mahlt das Mehl für die Brötchen.\n", "cp1252")
    for number in range(5):
        write(tmp_path / "in" / f"page-{number}.md", f"# Page {number}\n\nA lamp hangs on the wall.\n")
    write(tmp_path / "in" / "LICENSE", "All of it.")
    (source,) = look(tmp_path, tmp_path / "in").sources
    groups = {group.files: (group.shape, group.encoding, group.read) for group in source.groups}
    assert groups == {
        ("notes.csv",): ("text", "cp1252", 1),
        ("page-0.md", "page-1.md", "page-2.md"): ("document", "utf-8", 3),
        ("part-0.jsonl", "part-1.jsonl", "part-2.jsonl"): ("question-answer", "utf-8", 6),
    }
    assert (source.files, source.looked_at) == (9, 7)
    assert [(each.kind, each.name) for each in source.unused] == [("file", "LICENSE")]


def test_problems_are_all_told_and_end_the_command_as_prepare_would_end(tmp_path: Path) -> None:
    write(tmp_path / "in" / "moods.csv", "headline,mood\nLamps are bright today,good\n")
    write_jsonl(tmp_path / "in" / "rows.jsonl", [*questions(1), {"question": "Why?", "answer": None}])
    write(tmp_path / "in" / "empty.md", "")
    (source,) = look(tmp_path, tmp_path / "in").sources
    problems = {group.files: group.problems[0].partition(":")[0] for group in source.groups}
    assert set(problems) == {("moods.csv",), ("rows.jsonl",), ("empty.md",)}
    done = run("prepare", "--source", "in", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2
    assert "--map text=headline" in done.stdout
    assert "rows.jsonl:2: the column 'answer' is null" in done.stdout
    assert not (tmp_path / "runs").exists()
    assert run("prepare", "--source", "in", "--dry-run", "--on-error", "skip", cwd=tmp_path).returncode == 0


def test_json_is_the_same_as_an_object(tmp_path: Path) -> None:
    source = write(tmp_path / "reviews.csv", REVIEWS)
    done = run("prepare", "--source", source, "--map", "label=mood", "--dry-run", "--json", cwd=tmp_path)
    (group,) = json.loads(done.stdout)["sources"][0]["groups"]
    assert (group["shape"], group["columns"], group["kept"]) == ("classification", ["label=mood", "text"], 3)
    assert group["dropped"] == [{"step": "quality", "reason": "no_letters", "rows": 1}]


def test_only_the_first_rows_of_a_large_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the labels are the choices; a first part with one label does not make the file one of a single class."""
    monkeypatch.setattr(module, "LABEL_ROWS", 1500)
    rows = [{"text": f"The lamp number {n} hangs here.", "label": "good"} for n in range(2000)]
    source = write_jsonl(tmp_path / "rows.jsonl", [*rows, {"text": "The shelf broke.", "label": "bad"}])
    ((group,),) = [each.groups for each in look(tmp_path, source).sources]
    assert (group.read, group.labels, group.problems) == (LOOKED_AT, ("good",), ())


def test_rows_that_were_not_looked_at_are_told(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", questions(LOOKED_AT + 5))
    with source.open("a") as file:
        file.write("{broken")
    shown = render_preview(look(tmp_path, source))
    assert f"looked at  the first {LOOKED_AT:,} rows, kept {LOOKED_AT:,} rows" in shown
    assert "Rows further down were not looked at" in shown
    assert "further down" not in render_preview(look(tmp_path, write_jsonl(tmp_path / "few.jsonl", questions(5))))
