"""`slmtune domains new legal`: a folder that works at once, and never replaces an existing one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.artifacts import Corpus
from finetune.cli.scaffold import new_domain
from finetune.corpus.store import read_split
from finetune.errors import InputError
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import load_domain
from finetune.records import SPLITS

from ..command import run


@pytest.fixture
def legal(tmp_path: Path) -> Path:
    return new_domain("legal", tmp_path / "legal")


def sample_rows(folder: Path) -> int:
    return sum(len(file.read_text("utf-8").splitlines()) for file in (folder / "sample").glob("*.jsonl"))


def test_a_new_domain_is_a_valid_recipe_with_its_own_name(legal: Path) -> None:
    recipe = load_domain(str(legal)).recipe
    assert (recipe.name, recipe.title) == ("legal", "Legal")
    assert {task.task for task in recipe.tasks.values()} == {"classification", "qa"}
    for file in legal.rglob("*"):
        assert "__" not in (file.read_text("utf-8") if file.is_file() else ""), file.name
    assert "--domain ./legal" in (legal / "README.md").read_text("utf-8")


def test_a_new_domain_prepares_its_sample(legal: Path, tmp_path: Path) -> None:
    result = prepare(PrepareRequest(tmp_path / "out", domain=str(legal), sample=True))
    assert result.dropped == result.scrubbed == {}
    assert sum(result.splits.values()) == sample_rows(legal)
    assert all(result.splits.values())
    assert set(result.by_task) == {"classification", "qa"}
    (first, *_) = read_split(Corpus.open(result.corpus), "train")
    assert first.prompt[0].content == "What kind of message is this? Answer with one of: question, request, complaint."


def test_a_new_domain_prepares_rows_of_the_user(legal: Path, tmp_path: Path) -> None:
    (legal / "data").mkdir()
    (legal / "data" / "kind.csv").write_text("text,label\nSend the deed.,request\nWho signs?,question\n", "utf-8")
    pair = {"question": "Must a lease be in writing?", "answer": "That depends on its length."}
    (legal / "data" / "questions-test.jsonl").write_text(json.dumps(pair) + "\n", "utf-8")
    corpus = Corpus.open(prepare(PrepareRequest(tmp_path / "out", domain=str(legal))).corpus)
    rows = {row.prompt[-1].content: row for split in SPLITS for row in read_split(corpus, split)}
    assert {text: row.answer for text, row in rows.items()} == {
        "Send the deed.": "request",
        "Who signs?": "question",
        pair["question"]: pair["answer"],
    }
    assert [row.answer for row in read_split(corpus, "test") if row.task == "qa"] == [pair["answer"]]


def test_a_new_domain_without_rows_names_the_folder_to_fill(legal: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data/kind\*\.csv"):
        prepare(PrepareRequest(tmp_path / "out", domain=str(legal)))


def test_a_folder_that_exists_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "legal").mkdir()
    (tmp_path / "legal" / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(InputError, match="already exists"):
        new_domain("legal", tmp_path / "legal")
    assert [path.name for path in tmp_path.rglob("*")] == ["legal", "notes.txt"]


@pytest.mark.parametrize("name", ["", "Legal", "../legal", "legal_de", "2nd", "a--b", "-a", "a b", "recht§", "x" * 41])
def test_invalid_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not allowed as the name of a domain"):
        new_domain(name, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["health", "finance", "custom"])
def test_names_of_bundled_domains_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the name of a bundled domain"):
        new_domain(name, tmp_path / name)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(InputError, match="Cannot write"):
        new_domain("legal", tmp_path / "file" / "legal")


def test_commands_create_a_domain_and_prepare_it(tmp_path: Path) -> None:
    result = run("domains", "new", "legal", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    done = run("prepare", "--domain", "./legal", "--sample", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["splits"].values()) == sample_rows(tmp_path / "legal")
    assert (tmp_path / "runs" / "legal").is_dir()
