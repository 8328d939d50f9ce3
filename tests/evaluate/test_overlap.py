"""Rows that an adapter was trained on are no test of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.artifacts import Adapter, Corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.overlap import find_seen
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.scoring.tasks import tasks_of
from finetune.train import TrainRequest, train
from finetune.train import trained_rows as memory
from finetune.train.trained_rows import find_trained_rows, hash_rows

from ..conftest import chat

UNSEEN = [
    {"text": "The ferry fell behind on Sunday.", "label": "bearish"},
    {"text": "Tolls at the lock rose again.", "label": "bullish"},
]


@pytest.fixture(scope="module")
def mixed(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three rows of the training, spaced and capitalised differently, and two others."""
    trained = [row for row in read_split(Corpus.open(tiny_corpus), "train") if row.source == "news"][:3]
    rows = [{"text": f"  {row.prompt[-1].content.upper()} ", "label": row.label} for row in trained]
    path = tmp_path_factory.mktemp("mixed") / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *UNSEEN]), "utf-8")
    return path


def test_rows_of_the_training_are_refused(tiny_adapter: Path, mixed: Path, tmp_path: Path) -> None:
    request = EvalRequest(tiny_adapter, None, tmp_path / "out", tasks=(str(mixed),), forgetting=False)
    expected = r"trained on 3 of the 5 rows of mixed, such as mixed/mixed\.jsonl:\d: .* --allow-train-overlap"
    with pytest.raises(InputError, match=expected) as error:
        evaluate(request)
    assert "company" not in str(error.value).lower()  # no text of rows
    assert list(tmp_path.iterdir()) == []


def test_allowed_rows_are_counted_and_left_out_of_a_second_figure(
    tiny_adapter: Path, mixed: Path, tmp_path: Path
) -> None:
    request = EvalRequest(
        tiny_adapter, None, tmp_path / "out", tasks=(str(mixed),), allow_train_overlap=True, forgetting=False
    )
    task = evaluate(request).tasks["mixed"]
    assert (task.n, task.train_overlap) == (5, 3)
    assert task.clean is not None
    assert task.clean.n == 2
    figures = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["tasks"]["mixed"]
    assert figures["train_overlap"] == 3
    assert {"n", "base", "adapter", "delta", "ci95"} <= figures["clean"].keys()


def test_training_split_is_refused(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--allow-train-overlap"):
        evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", split="train", limit=2, forgetting=False))


def test_held_out_rows_are_found_to_be_unseen(tiny_adapter: Path, tiny_corpus: Path) -> None:
    corpus = Corpus.open(tiny_corpus)
    seen = find_seen(Adapter.open(tiny_adapter), None, tasks_of(corpus, "test"), allowed=False)
    assert seen == {"news": frozenset(), "questions": frozenset()}


def test_report_says_that_nothing_was_compared_where_the_training_is_unknown(
    tiny_adapter: Path,
    tiny_model: Path,
    tiny_corpus: Path,
    mixed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other-machine"))
    request = EvalRequest(tiny_adapter, None, tmp_path / "out", str(tiny_model), tasks=(str(mixed),), forgetting=False)
    task = evaluate(request).tasks["mixed"]
    assert task.train_overlap is None
    assert task.clean is None
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["tasks"]["mixed"]["train_overlap"] is None
    adapter, corpus = Adapter.open(tiny_adapter), Corpus.open(tiny_corpus)
    assert find_trained_rows(adapter.manifest, corpus) is not None  # the corpus at hand is that of the training


def test_training_before_counts_and_an_unknown_one_is_not_taken_for_none(
    tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    rows = [{"question": f"Which pier has number {n}?", "answer": f"Pier {n} north."} for n in range(12)]
    (tmp_path / "piers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    prepare(PrepareRequest(tmp_path / "piers", sources=(str(tmp_path / "piers.jsonl"),), near_duplicates=1))
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=1, init_adapter=str(tiny_adapter), eval_steps=0)
    train(TrainRequest(tmp_path / "piers", tmp_path / "adapter", recipe))
    adapter = Adapter.open(tmp_path / "adapter")
    first = tasks_of(Corpus.open(tiny_corpus), "train")
    seen = find_seen(adapter, None, [*first, *tasks_of(Corpus.open(tmp_path / "piers"), "train")], allowed=True)
    assert seen is not None
    assert {name: len(numbers) for name, numbers in seen.items()} == {
        **{task.name: len(task.examples) for task in first},
        "piers": Corpus.open(tmp_path / "piers").counts["train"],
    }
    (memory._folder() / f"{adapter.fingerprint}.json").unlink()
    assert find_trained_rows(adapter.manifest, Corpus.open(tmp_path / "piers")) is None


def test_notes_are_private_and_hold_no_text(tiny_adapter: Path) -> None:
    folder = memory._folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not [path for path in folder.iterdir() if b"company" in path.read_bytes()]
    assert not [path for path in tiny_adapter.rglob("*") if "trained-rows" in path.name]


def test_a_row_is_the_same_row_whatever_its_instruction_case_and_blanks() -> None:
    row = Example("1", chat("Is the pier open?", "Yes"), "qa")
    spaced = replace(row, id="2", messages=chat(" is  the pier OPEN?", "yes "))
    raw = Example("5", chat("Is A&amp;B open? Ask info@pier.example", "Yes"), "qa")
    clean = replace(raw, id="6", messages=chat("Is A&B open? Ask [EMAIL]", "Yes"))
    assert hash_rows([raw])[0] == hash_rows([clean])[0]
    other = replace(row, id="3", messages=chat("Is the pier open?", "No"))
    assert hash_rows([row])[0] == hash_rows([spaced])[0] != hash_rows([other])[0]
    text = Example("4", chat("Is the pier open?", "Yes"), "text")
    assert len(set(hash_rows([text, replace(text, messages=chat("Is it?", "Yes"))]).tolist())) == 2


def test_notes_take_eight_bytes_per_row() -> None:
    rows = [Example(str(n), chat(f"Is berth {n} of the long pier free on Sunday?", "yes"), "qa") for n in range(500)]
    assert len(np.unique(hash_rows(rows))) == 500
    assert hash_rows(rows).nbytes == 4000
