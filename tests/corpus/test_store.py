"""A corpus on disk: the rows read are the rows written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from finetune.artifacts import Corpus
from finetune.corpus.store import SCHEMA, read_split
from finetune.errors import InputError, OutputExistsError
from finetune.records import Drop, Example, Message

from ..conftest import chat
from ..corpora import write_corpus

ROWS = [
    Example("a/1", chat("Up or down?", "up"), "classification", "up", ("down", "up"), "g1", "a", "mit"),
    Example("a/2", chat("Wer? 🙂\nzweite Zeile", "Ich"), "qa", source="a", license="mit"),
    Example(
        "b/1", (Message("system", "Be brief."), *chat("q", "a", "q2", "a2")), "chat", source="b", license="apache-2.0"
    ),
    Example("b/2", (Message("assistant", "plain"),), "text", source="b", license="apache-2.0"),
]


def test_rows_read_are_the_rows_written(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {"train": ROWS, "test": ROWS[:1]})
    assert read_split(corpus, "train") == ROWS
    assert read_split(corpus, "test") == ROWS[:1]
    assert read_split(corpus, "validation") == []
    assert corpus.counts == {"train": 4, "validation": 0, "test": 1}


def test_all_shards_of_a_split_are_read(tmp_path: Path) -> None:
    """A corpus from elsewhere may have several Parquet files per split."""
    corpus = write_corpus(tmp_path / "c", {"train": ROWS})
    (file,) = corpus.files("train")
    table = parquet.read_table(file)
    file.unlink()
    for number, part in enumerate((table.slice(0, 1), table.slice(1))):
        parquet.write_table(part, corpus.path / "data" / f"train-0000{number}-of-00002.parquet")
    assert read_split(corpus, "train") == ROWS


def test_files_have_the_documented_columns_even_if_a_column_is_empty(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {"train": ROWS[1:2]})
    (file,) = corpus.files("train")
    assert parquet.read_schema(file).equals(SCHEMA)
    assert not (corpus.path / "data" / "test-00000-of-00001.parquet").exists()


def test_same_rows_and_configuration_give_the_same_fingerprint(tmp_path: Path) -> None:
    first, again, other = (
        write_corpus(tmp_path / name, {"train": ROWS}, config={"seed": seed}).fingerprint
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


def test_card_has_the_licences_and_tasks_of_the_rows(tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    corpus = write_corpus(tmp_path / "c", {"train": ROWS}, card="# Mine\n")
    card = DatasetCard.load(corpus.path / "README.md")
    assert card.data.license == ["apache-2.0", "mit"]
    assert card.data.task_categories == ["question-answering", "text-classification", "text-generation"]
    assert card.text.strip() == "# Mine"


def test_drops_are_listed_and_facts_are_in_the_manifest(tmp_path: Path) -> None:
    drops = [Drop("a/9", "read", "no_answer")]
    corpus = write_corpus(tmp_path / "c", {"train": ROWS}, drops=drops, facts={"domain": "mine"})
    assert json.loads((corpus.path / "drops.jsonl").read_text("utf-8")) == {
        "id": "a/9",
        "step": "read",
        "reason": "no_answer",
    }
    assert corpus.manifest["domain"] == "mine"
    assert corpus.manifest["by_task"] == {"chat": 1, "classification": 1, "qa": 1, "text": 1}


def test_an_existing_corpus_is_replaced_only_on_request(tmp_path: Path) -> None:
    write_corpus(tmp_path / "c", {"train": ROWS})
    with pytest.raises(OutputExistsError):
        write_corpus(tmp_path / "c", {"train": ROWS[:1]})
    write_corpus(tmp_path / "c", {"train": ROWS[:1]}, overwrite=True)
    assert len(read_split(Corpus.open(tmp_path / "c"), "train")) == 1


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    broken = Example("a/1", chat("q", "a\ud800"), "qa")
    with pytest.raises(UnicodeEncodeError):
        write_corpus(tmp_path / "c", {"train": [*ROWS, broken]})
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_is_not_written_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(InputError):
        write_corpus(tmp_path / "file" / "c", {"train": ROWS})
