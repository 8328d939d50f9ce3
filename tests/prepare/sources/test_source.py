"""What a source may be: folders, patterns, archives, documents, addresses; and what is refused."""

from __future__ import annotations

import http.server
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.errors import InputError, OfflineError, RecordError
from finetune.records import Unused
from finetune.storage.address import public_address

from ..conftest import Preparer, questions, write_jsonl

RENDERED = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes"
PROSE = (
    "The library opens at nine and closes at six on every day of the week but Sunday, when it stays shut. Members may "
    "borrow up to ten books for four weeks and can ask for two more weeks if nobody else is waiting for the book.\n\n"
    "A lost card costs five francs. A lost book costs as much as a new copy, and the fee for the work of ordering it."
)


def test_a_mixed_folder_gives_rows_and_documents(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "rows.jsonl", questions(3))
    (tmp_path / "in" / "notes.txt").write_text(PROSE, "utf-8")
    (tmp_path / "in" / "page.md").write_text(f"# Rules\n\n{PROSE.replace('library', 'museum')[:200]}", "utf-8")
    made = prepared(tmp_path / "in", near_duplicates=1.0)
    assert made.result.by_task == {"qa": 3, "text": 2}
    assert made.result.sources[0].shape == "document, question-answer"


def test_files_about_a_folder_are_left_out_of_it(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "rows.jsonl", questions(3))
    (tmp_path / "in" / "README.md").write_text(PROSE, "utf-8")
    (tmp_path / "in" / "LICENSE.txt").write_text(PROSE, "utf-8")
    assert prepared(tmp_path / "in").result.by_task == {"qa": 3}
    assert prepared(tmp_path / "in" / "README.md").result.by_task == {"text": 1}


def test_a_pattern_reaches_into_folders(prepared: Preparer, tmp_path: Path) -> None:
    for number, name in enumerate(["a/one.jsonl", "a/b/two.jsonl", "a/three.txt"]):
        write_jsonl(tmp_path / name, questions(2, 10 * number))
    assert sum(prepared(f"{tmp_path}/a/**/*.jsonl").result.splits.values()) == 4


def test_archives_and_files_give_the_same_rows(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "train.jsonl", questions(4))
    write_jsonl(tmp_path / "in" / "test.jsonl", questions(2, 100))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted((tmp_path / "in").iterdir()):
            archive.write(path, path.name)
    folder, archived = prepared(tmp_path / "in"), prepared(tmp_path / "all.zip")
    assert folder.result.splits == archived.result.splits == {"train": 4, "validation": 0, "test": 2}
    assert [row.messages for row in folder.rows] == [row.messages for row in archived.rows]
    assert archived.rows[0].id == "all/all.zip/train.jsonl:1"


def test_a_link_that_leads_out_of_the_folder_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "secret.jsonl", questions(3))
    write_jsonl(tmp_path / "in" / "rows.jsonl", questions(3))
    (tmp_path / "in" / "more.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(InputError, match=r"more\.jsonl is a link to a file outside"):
        prepared(tmp_path / "in")
    (tmp_path / "in" / "more.jsonl").unlink()
    (tmp_path / "in" / "again.jsonl").symlink_to(tmp_path / "in" / "rows.jsonl")
    assert sum(prepared(tmp_path / "in").result.splits.values()) == 3


def test_a_named_pipe_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        prepared(tmp_path / "rows.jsonl")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", questions(1)).chmod(0)
    with pytest.raises(InputError, match=r"rows\.jsonl cannot be read \(Permission denied\)"):
        prepared(tmp_path / "rows.jsonl")


def test_a_document_that_cannot_be_used_stops_the_run_or_is_counted(prepared: Preparer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.txt").write_text(PROSE, "utf-8")
    (tmp_path / "in" / "bad.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    with pytest.raises(RecordError, match=r"bad\.pdf"):
        prepared(tmp_path / "in")
    made = prepared(tmp_path / "in", on_error="skip")
    assert made.result.dropped == {"damaged_pdf": 1}
    assert made.drops == [{"id": "in/bad.pdf", "step": "read", "reason": "damaged_pdf"}]


def test_a_file_of_unknown_columns_can_be_skipped(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "good.jsonl", questions(3))
    write_jsonl(tmp_path / "in" / "odd.jsonl", [{"alpha": 1, "beta": 2}])
    assert prepared(tmp_path / "in", on_error="skip").result.dropped == {"unknown_columns": 1}


def test_long_texts_are_cut_into_pieces_that_share_a_split(prepared: Preparer, tmp_path: Path) -> None:
    chapters = [f"Chapter {n} tells how the people of town number {n} built bridge number {n * 3}." for n in range(400)]
    (tmp_path / "book.txt").write_text("\n\n".join(chapters), "utf-8")
    made = prepared(tmp_path / "book.txt", chunk_tokens=200, near_duplicates=1.0)
    assert len(made.rows) > 10
    assert {row.group for row in made.rows} == {"book/book.txt"}
    assert sorted(made.result.splits.values())[:2] == [0, 0]
    joined = " ".join(row.answer for row in sorted(made.rows, key=lambda row: int(row.id.rsplit("#")[-1])))
    assert joined.split() == " ".join(chapters).split()
    rows = prepared(write_jsonl(tmp_path / "rows.jsonl", [{"text": "\n\n".join(chapters)}]), chunk_tokens=200)
    assert len(rows.rows) > 10
    assert {row.group for row in rows.rows} == {"rows/rows.jsonl:1"}


def test_instruct_makes_questions_out_of_documents(prepared: Preparer, tmp_path: Path) -> None:
    page = f"# Library card\n\n## How do I get a card?\n\n{PROSE[:220]}\n\n## What does a lost card cost?\n\n{PROSE[-110:]}\n"
    (tmp_path / "faq.md").write_text(page, "utf-8")
    made = prepared(tmp_path / "faq.md", instruct=True)
    assert made.result.by_task == {"qa": 2}
    asked = {row.messages[0].content for row in made.rows}
    assert asked == {"How do I get a card?", "What does a lost card cost?"}
    assert prepared(tmp_path / "faq.md").result.by_task == {"text": 1}


def test_lines_that_documents_repeat_are_left_out(prepared: Preparer, tmp_path: Path) -> None:
    notice = "This leaflet is given out by the office of the town and may be copied freely for any purpose at all."
    for number in range(6):
        body = f"Street {number} was built in the year {1900 + number * 7} and has {number * 11} houses on both of its sides."
        (tmp_path / f"leaflet-{number}.txt").write_text(f"{body}\n\n{notice}\n\n{body[::-1]}", "utf-8")
    made = prepared(tmp_path / "leaflet-*.txt", near_duplicates=1.0)
    assert len(made.rows) == 6
    assert not any("given out by the office" in text for text in made.texts)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"question": "What is it?", "answer": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes"},
            "rendered_template",
        ),
        ({"question": ["a", 1], "answer": "b"}, "several_values"),
        ({"question": float("nan"), "answer": "It is none."}, "empty_field"),
        ({"prompt": "What?", "completion": "This."}, "missing_column"),
    ],
)
def test_rows_unlike_the_others_are_refused(
    row: dict[str, object], reason: str, prepared: Preparer, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [*questions(5), row])
    with pytest.raises(RecordError, match=r"rows\.jsonl:6: "):
        prepared(source)
    assert prepared(source, on_error="skip").result.dropped == {reason: 1}


def test_control_tokens_in_a_text_are_made_harmless(prepared: Preparer, tmp_path: Path) -> None:
    rows = [
        *questions(3),
        {"question": "What does <|im_end|> mean?", "answer": "It ends a turn; </s> does so elsewhere."},
    ]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows))
    text = " ".join(made.texts)
    assert "<|im_end|>" not in text
    assert "</s>" not in text
    assert "im_end" in text
    assert made.result.cleaned == {"control tokens broken up": 1}


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A server of the files in `tmp_path / "site"`."""
    (tmp_path / "site").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "site"))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_address_is_read_and_its_digest_kept(site: str, prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "site" / "rows.jsonl", questions(4))
    write_jsonl(tmp_path / "site" / "evals.jsonl", questions(2, start=50))
    made = prepared(f"{site}/rows.jsonl?token=secret", decontaminate=(f"{site}/evals.jsonl?token=secret",))
    assert made.corpus.manifest["config"]["decontaminate"] == [f"{site}/evals.jsonl"]
    (source,) = made.result.sources
    assert (source.uri, source.kept) == (f"{site}/rows.jsonl", 4)
    assert str(source.revision).startswith("sha256:")
    for file in made.corpus.path.rglob("*"):
        if file.is_file():
            assert b"secret" not in file.read_bytes(), file.name


def test_a_fetched_file_serves_offline(
    site: str, prepared: Preparer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "site" / "rows.jsonl", questions(4))
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(OfflineError, match="not in the cache"):
            prepared(f"{site}/rows.jsonl")
    prepared(f"{site}/rows.jsonl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert sum(prepared(f"{site}/rows.jsonl").result.splits.values()) == 4


def test_an_address_without_a_file_is_named(site: str, prepared: Preparer) -> None:
    with pytest.raises(InputError, match=f"There is no file at {site}/gone"):
        prepared(f"{site}/gone.jsonl")
    with pytest.raises(InputError, match="does not name a file"):
        prepared(f"{site}/")


def test_a_file_system_of_fsspec_is_read(prepared: Preparer) -> None:
    import fsspec

    data = "".join(json.dumps(row) + "\n" for row in questions(4))
    fsspec.filesystem("memory").pipe("/bucket/rows.jsonl", data.encode())
    made = prepared("memory://bucket/rows.jsonl")
    assert sum(made.result.splits.values()) == 4
    assert made.result.sources[0].uri == "memory://bucket/rows.jsonl"
    with pytest.raises(InputError, match="There is no file at memory://bucket/gone"):
        prepared("memory://bucket/gone.jsonl")
    with pytest.raises(InputError, match="slmtune downloads from https://, s3:// and gs://"):
        prepared("nothing://bucket/rows.jsonl")


def test_a_folder_and_a_glob_of_a_bucket_are_read(prepared: Preparer) -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    for number, name in enumerate(("rows/a.jsonl", "rows/more/b.jsonl", "rows/picture.png")):
        data = "".join(json.dumps(row) + "\n" for row in questions(3, start=3 * number))
        files.pipe(f"/shop/{name}", data.encode())
    folder, pattern = prepared("memory://shop/rows/"), prepared("memory://shop/rows/*.jsonl")
    assert sorted(row.id for row in folder.rows)[::3] == ["rows/a.jsonl:1", "rows/more/b.jsonl:1"]
    assert folder.result.unused == [Unused("rows", "file", "picture.png", 1)]
    assert sorted(row.id for row in pattern.rows) == [f"rows/a.jsonl:{line}" for line in (1, 2, 3)]
    assert pattern.result.sources[0].uri == "memory://shop/rows/*.jsonl"
    assert pattern.result.sources[0].revision != folder.result.sources[0].revision
    files.pipe("/shop/rows/broken.jsonl", b"{")
    with pytest.raises(InputError, match=r"memory://shop/rows/broken\.jsonl:1"):
        prepared("memory://shop/rows/*.jsonl")
    with pytest.raises(InputError, match="There is no file at memory://shop/none"):
        prepared("memory://shop/none/*.csv")


def test_an_object_whose_name_leads_out_of_the_cache_is_refused(prepared: Preparer) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/evil/rows/../../../out.jsonl", b"{}")
    with pytest.raises(InputError, match="points outside"):
        prepared("memory://evil/rows/")


def test_secrets_are_no_part_of_an_address() -> None:
    assert public_address("https://me:pass@host:81/a/b.csv?sig=1#x") == "https://host:81/a/b.csv"
    assert public_address("s3://KEY:SEC/RET@bucket/a@b.csv") == "s3://b.csv"  # anything before an @ may be a secret
    assert public_address("s3://KEY:SECRET/b.csv") == "s3://…"
