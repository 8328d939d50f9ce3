"""Every file of a source is read, or counted as not used, or stops the run."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from finetune.errors import InputError
from finetune.prepare.sources.local import find_files

from ..conftest import Preparer, questions, write_jsonl

CANARY = "# Canary {n}\n\nThe bird number {n} sings in the hall of the old station and flies away at noon.\n"
# Where a file can be, and what becomes of it: read, or the name under which it is counted.
PLACES = {
    "page.md": "read",
    "sub/deeper/page.txt": "read",
    "packed.zip/inside/page.md": "read",
    "packed.zip/slides.key": "packed.zip/slides.key",
    "packed.zip/.notes.md": "packed.zip/.notes.md",
    "packed.zip/__MACOSX/._page.md": "left behind",
    ".DS_Store": "left behind",
    ".draft.md": ".draft.md",
    ".old/page.md": ".old/",
    "slides.key": "slides.key",
    "sub/slides": "sub/slides",
    "README.md": "README.md",
    "sub/README.md": "read",
    "LICENSE": "LICENSE",
    "Notice.txt": "Notice.txt",
    "Notice of termination.md": "read",
    "License agreement.txt": "read",
    "Changes in the tariff.md": "read",
    "Readme first.md": "read",
    "state.json": "state.json",
    "page.md.gz.part": "page.md.gz.part",
    "images/1.jpg": ".jpg",
    "images/2.jpg": ".jpg",
    "images/3.JPG": ".jpg",
    "images/4.jpg": ".jpg",
}


def fill(root: Path, places: dict[str, str]) -> Path:
    for number, name in enumerate(places):
        archive, _, member = name.partition(".zip/")
        path = root / (f"{archive}.zip" if member else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if member:
            with zipfile.ZipFile(path, "a") as packed:
                packed.writestr(member, CANARY.format(n=number))
        else:
            path.write_text(CANARY.format(n=number), "utf-8")
    return root


def test_a_file_in_any_place_comes_out_or_is_told(prepared: Preparer, tmp_path: Path) -> None:
    root = fill(tmp_path / "in", PLACES)
    (root / "again").symlink_to(root / "sub")
    (root / "gone.csv").symlink_to(root / "nothing.csv")
    made = prepared(root, near_duplicates=1.0)
    told = {each.name: each.count for each in made.result.unused if each.kind == "file"}
    out = " ".join(made.texts)
    for number, (name, outcome) in enumerate(PLACES.items()):
        assert (f"bird number {number} sings" in out) == (outcome == "read"), name
        assert outcome in {"read", "left behind", *told}, name
    assert told.pop(".jpg") == 4
    assert {"again/", "gone.csv"} <= set(told)
    assert set(told.values()) == {1}
    assert "file slides.key of in" in (made.corpus.path / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("names", "unread"),
    [
        (["rows.csv", "README.md"], {"README.md": 1}),
        (["rows.csv", "README.de.md", "Licence.txt"], {"Licence.txt": 1, "README.de.md": 1}),
        (["data/rows.csv", "data/README.md", "README.md"], {"README.md": 1, "data/README.md": 1}),
        (["README.md"], {}),  # there is nothing else
        (["authors.csv", "notice.jsonl", "changes.docx"], {}),  # rows and typeset documents are no notes about a folder
        ([f"{n}/rows.csv" for n in range(9)] + [f"{n}/README.md" for n in range(9)], {"README.md": 9}),
        (["book/preface.md", "book/one/README.md", "book/two/README.md"], {}),
    ],
)
def test_files_about_a_folder_are_counted(names: list[str], unread: dict[str, int], tmp_path: Path) -> None:
    listing = find_files(str(fill(tmp_path / "in", dict.fromkeys(names, ""))))
    assert listing.unread == unread
    assert len(listing.files) == len(names) - sum(unread.values())


def test_a_pattern_tells_what_it_matches_and_does_not_read(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", dict.fromkeys(["a.csv", "b.key", "sub/c.csv", "other/d.csv"], ""))
    assert find_files(f"{root}/*").unread == {"b.key": 1, "other/": 1, "sub/": 1}
    deep = find_files(f"{root}/**/*.csv")
    assert ([file.name for file in deep.files], deep.unread) == (["a.csv", "other/d.csv", "sub/c.csv"], {})


@pytest.mark.parametrize("name", ["more", "more.jsonl"])
def test_a_link_out_of_the_folder_is_refused(name: str, prepared: Preparer, tmp_path: Path) -> None:
    elsewhere = write_jsonl(tmp_path / "elsewhere" / "rows.jsonl", questions(3))
    write_jsonl(tmp_path / "in" / "rows.jsonl", questions(3))
    (tmp_path / "in" / name).symlink_to(elsewhere if "." in name else elsewhere.parent)
    with pytest.raises(InputError, match=rf"{name} is a link to a f\w+ outside"):
        prepared(tmp_path / "in")
    (tmp_path / "in" / name).rename(tmp_path / "in" / f".{name}")  # a hidden one would not be read anyway
    assert find_files(str(tmp_path / "in")).unread == {f".{name}" + ("" if "." in name else "/"): 1}


def test_an_archive_in_an_archive_and_an_empty_file_stop_the_run(prepared: Preparer, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as packed:
        packed.writestr("inner.zip", b"PK")
    with pytest.raises(InputError, match=r"'inner\.zip' is an archive inside an archive"):
        prepared(tmp_path / "outer.zip")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match=r"empty\.csv is empty"):
        prepared(tmp_path / "empty.csv")


def test_a_folder_without_readable_files_says_what_it_has(tmp_path: Path) -> None:
    root = fill(tmp_path / "in", dict.fromkeys(["slides.key", *(f"{n}.jpg" for n in range(9))], ""))
    with pytest.raises(InputError, match=r"in has no files that slmtune reads \(it has \.jpg, slides\.key\)"):
        find_files(str(root))
