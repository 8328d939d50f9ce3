"""The whole stage: what lands on disk, that it is the same each time, and that nothing lands half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import MANIFEST, Corpus
from finetune.corpus.store import SCHEMA, read_split
from finetune.errors import ArtifactError, ConfigError, InputError, OutputExistsError, SlmtuneError, UnknownNameError
from finetune.prepare import PrepareRequest, prepare
from finetune.records import SPLITS

from ..command import run
from .conftest import Preparer, questions, write_jsonl


def test_two_runs_give_the_same_corpus(prepared: Preparer) -> None:
    first, second = (prepared(domain="finance", sample=True) for _ in range(2))
    assert first.result.fingerprint == second.result.fingerprint == first.corpus.fingerprint
    assert first.rows == second.rows


def test_where_the_source_lies_changes_nothing(prepared: Preparer, tmp_path: Path) -> None:
    here, there = (write_jsonl(tmp_path / folder / "rows.jsonl", questions(40)) for folder in ("here", "there"))
    assert prepared(here).result.fingerprint == prepared(there).result.fingerprint


@pytest.mark.parametrize("change", [{"seed": 7}, {"limit": 5}, {"scrub": False}, {"split_ratio": "0.8/0.1/0.1"}])
def test_another_request_gives_another_fingerprint(change: dict[str, Any], prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", questions(40))
    assert prepared(source).result.fingerprint != prepared(source, **change).result.fingerprint


def test_datasets_reads_the_corpus_as_it_is(prepared: Preparer, tmp_path: Path) -> None:
    import datasets

    made = prepared(domain="health", sample=True)
    loaded = datasets.load_dataset(str(made.corpus.path), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == made.result.splits
    assert list(loaded["train"].features) == [*SCHEMA.names, "context"]
    first = read_split(made.corpus, "train")[0]
    assert loaded["train"][0]["messages"] == [{"role": m.role, "content": m.content} for m in first.messages]


def test_datasets_reads_a_corpus_without_test_rows(prepared: Preparer, tmp_path: Path) -> None:
    import datasets

    made = prepared(write_jsonl(tmp_path / "train.jsonl", questions(3)))
    loaded = datasets.load_dataset(str(made.corpus.path), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert read_split(made.corpus, "test") == []


def test_manifest_says_what_was_done_and_no_path(prepared: Preparer, tmp_path: Path) -> None:
    rows = [*questions(20), *questions(2), {"question": "Q?", "answer": ""}]
    source = write_jsonl(tmp_path / "private" / "rows.jsonl", rows)
    made = prepared(source, on_error="skip", license="cc-by-4.0")
    manifest = json.loads((made.corpus.path / MANIFEST).read_text("utf-8"))
    assert manifest["domain"] == "custom"
    assert manifest["parents"] == {}
    assert sum(manifest["counts"].values()) == 20
    assert manifest["dropped"] == {"duplicate": 2, "no_answer": 1}
    assert manifest["by_task"] == {"qa": 20}
    described = {"id": "rows", "uri": "rows.jsonl", "revision": None, "read": 23, "kept": 20, "license": "cc-by-4.0"}
    described["shape"] = "question-answer"
    assert manifest["sources"] == [{**described, "encodings": {}, "metrics": [], "task": None, "prompt": None}]
    assert manifest["config"]["sources"] == ["rows.jsonl"]
    for file in made.corpus.path.rglob("*"):
        if file.is_file():
            assert b"private" not in file.read_bytes(), file.name


def test_every_row_read_is_in_the_corpus_or_among_the_dropped(prepared: Preparer, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [*questions(50), *questions(5), {"question": "Q?", "answer": None}]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), on_error="skip", limit=10)
    names = [row.id for row in made.rows] + [drop["id"] for drop in made.drops]
    assert sorted(names) == sorted(f"rows/rows.jsonl:{line}" for line in range(1, 57))
    assert set(made.drops[0]) == {"id", "step", "reason"}
    assert sum(made.result.dropped.values()) == len(made.drops)


def test_drops_hold_no_text(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [*questions(2), {"question": "Confidential matter", "answer": ""}])
    made = prepared(source, on_error="skip")
    assert "Confidential" not in (made.corpus.path / "drops.jsonl").read_text("utf-8")


def test_limit_draws_from_sorted_files(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": "low" if n < 100 else "high"} for n in range(200)]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), limit=40, split_ratio="1/0/0")
    labels = [row.label for row in made.rows]
    assert len(labels) == 40
    assert 10 < labels.count("low") < 30


def test_limit_counts_each_source_and_split(prepared: Preparer) -> None:
    made = prepared(domain="finance", sample=True, limit=7)
    assert made.result.splits == {"train": 14, "validation": 14, "test": 14}
    assert {source.id: source.kept for source in made.result.sources} == {"news": 21, "questions": 21}


def test_result_counts_labels_and_tasks(prepared: Preparer) -> None:
    result = prepared(domain="finance", sample=True).result
    assert result.labels == {"news": {"bearish": 230, "bullish": 230, "neutral": 230}}
    assert result.by_task == {"classification": 690, "qa": 120}
    assert result.seconds > 0


def test_sources_of_the_same_name_stay_apart(prepared: Preparer, tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "a" / "rows.jsonl", questions(3))
    second = write_jsonl(tmp_path / "b" / "rows.jsonl", questions(3, 10))
    made = prepared(first, second)
    assert {row.source for row in made.rows} == {"rows", "rows-2"}
    assert len({row.id for row in made.rows}) == 6


def test_a_folder_is_read_with_its_subfolders_but_without_hidden_files(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", questions(2))
    write_jsonl(tmp_path / "in" / "deep" / "b.jsonl", questions(2, 5))
    write_jsonl(tmp_path / "in" / ".cache" / "c.jsonl", questions(2, 9))
    (tmp_path / "in" / "notes.key").write_text("not read", "utf-8")
    made = prepared(tmp_path / "in")
    assert {row.id for row in made.rows} == {"in/a.jsonl:1", "in/a.jsonl:2", "in/deep/b.jsonl:1", "in/deep/b.jsonl:2"}


def test_a_pattern_stands_for_its_files(prepared: Preparer, tmp_path: Path) -> None:
    for name in ("a-1.jsonl", "a-2.jsonl", "b-1.jsonl"):
        write_jsonl(tmp_path / name, questions(2, 10 * int(name[2]) + (100 if name[0] == "b" else 0)))
    assert len(prepared(tmp_path / "a-*.jsonl").rows) == 4


def test_a_corpus_can_be_a_source(prepared: Preparer) -> None:
    first = prepared(domain="finance", sample=True)
    second = prepared(first.corpus.path)
    assert second.result.splits == first.result.splits
    assert [(row.messages, row.task, row.label, row.choices) for row in second.rows] == [
        (row.messages, row.task, row.label, row.choices) for row in first.rows
    ]


# --- what cannot be done ----------------------------------------------------------------------------------------------

IMPOSSIBLE: dict[str, tuple[dict[str, Any], type[SlmtuneError], str]] = {
    "unknown domain": ({"domain": "finanse"}, UnknownNameError, "Did you mean 'finance'"),
    "nothing to do": ({}, InputError, "--domain NAME, or rows of your own with --source FILE"),
    "sample without a domain": ({"sample": True}, InputError, "--domain NAME"),
    "sample and sources": (
        {"domain": "finance", "sample": True, "sources": ("x.csv",)},
        InputError,
        "only one of them",
    ),
    "negative limit": ({"domain": "finance", "sample": True, "limit": -1}, ConfigError, "--limit -1"),
    "limit of zero": ({"domain": "finance", "sample": True, "limit": 0}, ConfigError, "--limit 0"),
    "negative seed": ({"domain": "finance", "sample": True, "seed": -1}, ConfigError, "--seed -1"),
    "bad ratio": ({"domain": "finance", "sample": True, "split_ratio": "1/2"}, ConfigError, "--split-ratio 1/2"),
    "name of a language": ({"sources": ("x.csv",), "language": "en,English"}, ConfigError, "--language English"),
    "map without source": ({"domain": "finance", "columns": {"text": "x"}}, ConfigError, "--source"),
    "unknown name in map": ({"sources": ("x.csv",), "columns": {"texts": "x"}}, ConfigError, "Did you mean 'text'"),
    "missing file": ({"sources": ("gone.csv",)}, InputError, "There is no file or folder gone.csv"),
    "Hub id as a path": ({"sources": ("acme/news",)}, InputError, "hf://datasets/acme/news"),
    "malformed Hub address": ({"sources": ("hf://datasets/a/b/c.csv",)}, InputError, "hf://datasets/ID"),
}


@pytest.mark.parametrize(("options", "error", "says"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_request_is_refused(
    options: dict[str, Any], error: type[SlmtuneError], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as raised:
        prepare(PrepareRequest(tmp_path / "out", **options))
    assert says in str(raised.value)
    assert raised.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_all_problems_of_a_request_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        prepare(
            PrepareRequest(tmp_path / "out", sources=("x",), limit=0, seed=-1, split_ratio="2", columns={"txt": "x"})
        )
    assert len(raised.value.problems) == 4


def test_a_mistyped_file_name_is_guessed(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "reviews.jsonl", questions(1))
    with pytest.raises(InputError, match=r"Did you mean 'reviews\.jsonl'"):
        prepared(tmp_path / "review.jsonl")


def test_a_folder_without_readable_files_lists_the_formats(prepared: Preparer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.key").write_text("x", "utf-8")
    with pytest.raises(InputError, match=r"It reads \.jsonl, .*\.parquet"):
        prepared(tmp_path / "in")
    with pytest.raises(InputError, match=r"notes.key is in a format"):
        prepared(tmp_path / "in" / "notes.key")


def test_an_output_that_exists_is_kept_unless_told_otherwise(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", questions(3))
    made = prepared(source, output_dir=tmp_path / "out")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        prepared(source, output_dir=tmp_path / "out")
    assert Corpus.open(tmp_path / "out").fingerprint == made.result.fingerprint
    write_jsonl(source, questions(5))
    assert len(prepared(source, output_dir=tmp_path / "out", overwrite=True).rows) == 5


def test_a_failing_run_leaves_the_old_corpus(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", questions(3))
    made = prepared(source, output_dir=tmp_path / "out")
    source.write_text("{", "utf-8")
    with pytest.raises(InputError):
        prepared(source, output_dir=tmp_path / "out", overwrite=True)
    assert Corpus.open(tmp_path / "out").fingerprint == made.result.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "train.jsonl"]


def test_a_folder_of_the_users_is_never_overwritten(prepared: Preparer, tmp_path: Path) -> None:
    mine = write_jsonl(tmp_path / "mine" / "train.jsonl", questions(3))
    with pytest.raises(InputError, match="was not made by slmtune"):
        prepared(mine, output_dir=tmp_path / "mine", overwrite=True)
    assert mine.is_file()


def test_an_output_that_cannot_be_written_is_named(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", questions(3))
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(InputError, match="Cannot write to"):
        prepared(source, output_dir=tmp_path / "file" / "out")


def test_a_damaged_corpus_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "train.jsonl", questions(3)))
    (file,) = made.corpus.files("train")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"train-00000-of-00001\.parquet has changed"):
        Corpus.open(made.corpus.path)


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_prints_one_json_object(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "reviews.jsonl", [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(30)])
    done = run("prepare", "--source", "reviews.jsonl", "--output-dir", "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    wanted = {"corpus", "splits", "dropped", "scrubbed", "sources", "fingerprint", "seconds"}
    assert wanted <= set(result)
    assert set(result["splits"]) == set(SPLITS)
    assert {"id", "read", "kept", "license"} <= set(result["sources"][0])


def test_command_ends_with_2_and_one_paragraph_on_bad_input(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "Private?", "answer": ""}\n', "utf-8")
    done = run("prepare", "--source", "rows.jsonl", "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "rows.jsonl:1: " in done.stderr
    assert "Private" not in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
