"""Rows are rendered once: a later run maps them into memory, unless anything that they are made from has changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune import kept
from finetune.artifacts import Adapter, Corpus, sha256_of
from finetune.errors import ArtifactError
from finetune.machine import cache_folder
from finetune.models import packed
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.train import TrainRequest, inputs, kept_rows, train
from finetune.train.batches.rows import SHORTEST_PREFIX, Rows, TokenRows
from finetune.train.inputs import open_inputs, render_split
from finetune.train.kept_rows import KeptIds

from ..command import Command
from ..conftest import chat
from ..corpora import write_corpus
from ..encoders import NEWS, write_encoder

FEWEST = kept_rows.FEWEST  # before the fixture below changes it
SYSTEM = "Say yes or no, and nothing else at all."


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the rows of small corpora as well, in an empty cache."""
    monkeypatch.setattr(kept_rows, "FEWEST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def row(number: int, answer: str = "Yes.") -> Example:
    messages = chat(f"{SYSTEM}\n\nDid profit rise {number}?", answer)
    return Example(f"é{number}", messages, "chat", source="news")


def pair(number: int) -> Example:
    question = f"Did the bank number {number} raise its outlook?"
    return Example(str(number), chat(question, "Yes."), "preference", rejected=chat(question, f"No {number}."))


def labelled(number: int) -> Example:
    label = NEWS.labels[number % 3]
    messages = chat(f"Shares {number} rose.", label)
    return Example(str(number), messages, "classification", label=label, choices=NEWS.labels, source="news")


def write(folder: Path, rows: list[Example]) -> Path:
    return write_corpus(folder, {"train": rows[2:], "validation": rows[:2]}).path


def render(corpus: Path, model: Path, **settings: object) -> Rows:
    recipe = AdapterRecipe.model_validate({"model": str(model), **settings})
    opened = open_inputs(TrainRequest(corpus, corpus.parent / "adapter", recipe))
    return render_split(opened, load_tokenizer(opened.base.folder, opened.base), "train")


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that render rows, whenever they do."""
    calls: list[str] = []

    def record(name: str) -> None:
        function = getattr(inputs, name)

        def call(*arguments: object) -> object:
            calls.append(name)
            return function(*arguments)

        monkeypatch.setattr(inputs, name, call)

    for name in ("render_rows", "encode_rows"):
        record(name)
    return calls


def contents(rows: Rows) -> Mapping[str, object]:
    """Everything that rows tell, as plain values."""
    whole: Any = rows
    names = [field.name for field in fields(whole)]
    prefix = "prompts" if isinstance(rows, TokenRows) and rows.are_pairs else "common_prefix"
    derived = ("lengths", "supervised", "fingerprint", "largest_token", prefix)
    values = {name: getattr(rows, name) for name in (*names, *derived)}
    return {name: each.tolist() if isinstance(each, np.ndarray) else each for name, each in values.items()} | {
        "ids": list(rows.ids)
    }


@pytest.mark.parametrize("kind", ["answers", "pairs", "labels"])
def test_kept_rows_are_those_that_were_rendered(
    kind: str, tiny_model: Path, tmp_path: Path, rendered: list[str]
) -> None:
    make = {"answers": row, "pairs": pair, "labels": labelled}[kind]
    model = write_encoder(tmp_path / "bert", "bert") if kind == "labels" else tiny_model
    corpus = write(tmp_path / "corpus", [make(number) for number in range(9)])
    settings = {"method": "dpo"} if kind == "pairs" else {}
    first, second = (render(corpus, model, **settings) for _ in range(2))
    assert len(rendered) == 1
    assert isinstance(second.ids, KeptIds)
    assert contents(first) == contents(second)
    assert second.ids[-1] == first.ids[-1]
    assert second.ids[1:3] == list(first.ids[1:3])


def test_changed_corpus_is_rendered_anew(tiny_model: Path, tmp_path: Path, rendered: list[str]) -> None:
    rows = [row(number) for number in range(6)]
    corpus = write(tmp_path / "corpus", rows)
    before = render(corpus, tiny_model)
    shutil.rmtree(corpus)
    write(corpus, [*rows[:5], replace(rows[5], messages=row(5, "No.").messages)])
    after = render(corpus, tiny_model)
    assert len(rendered) == 2
    assert before.fingerprint != after.fingerprint


def test_row_changed_in_place_is_noticed_with_the_same_size_and_date(tiny_model: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", [row(number) for number in range(6)])
    render(corpus, tiny_model)
    (file,) = Corpus.open(corpus).files("train")
    before, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ArtifactError, match="has changed since it was written"):
        render(corpus, tiny_model)


def test_changed_tokenizer_or_setting_is_rendered_anew(tiny_model: Path, tmp_path: Path, rendered: list[str]) -> None:
    corpus = write(tmp_path / "corpus", [row(number) for number in range(6)])
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    whole = render(corpus, model)
    assert render(corpus, model, max_length=whole.longest - 1).truncated
    template = model / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("'<|im_end|>'", "'!<|im_end|>'"), "utf-8")
    assert render(corpus, model).longest > whole.longest
    assert len(rendered) == 3


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no facts"])
def test_damaged_kept_rows_are_rendered_anew(
    damage: str, tiny_model: Path, tmp_path: Path, rendered: list[str]
) -> None:
    corpus = write(tmp_path / "corpus", [row(number) for number in range(6)])
    expected = contents(render(corpus, tiny_model))
    (tokens,) = (cache_folder() / "rows").glob("*/flat_tokens.npy")
    data = tokens.read_bytes()
    if damage == "cut":
        tokens.write_bytes(data[:-4])
    elif damage == "changed":
        tokens.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "missing":
        tokens.unlink()
    else:
        (tokens.parent / kept.FACTS).write_text("{}", "utf-8")
    assert [contents(render(corpus, tiny_model)) for _ in range(2)] == [expected, expected]
    assert len(rendered) == 2


def test_kept_rows_go_when_their_corpus_has_gone(tiny_model: Path, tmp_path: Path) -> None:
    corpora = [write(tmp_path / name, [row(number) for number in range(start, 6)]) for start, name in enumerate("ab")]
    render(corpora[0], tiny_model)
    root = cache_folder() / "rows"
    assert root.stat().st_mode & 0o777 == 0o700
    (before,) = root.iterdir()
    shutil.rmtree(corpora[0])
    render(corpora[1], tiny_model)
    (after,) = root.iterdir()
    assert json.loads((after / kept.FACTS).read_text("utf-8"))["origin"] == str(corpora[1])
    assert before != after


def test_least_recently_used_rows_make_room(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rendered: list[str]
) -> None:
    corpora = [write(tmp_path / name, [row(number) for number in range(start, 6)]) for start, name in enumerate("abc")]
    monkeypatch.setattr(kept, "MOST_BYTES", 0)
    for corpus in corpora:
        render(corpus, tiny_model)
    assert len([*(cache_folder() / "rows").iterdir()]) == 1
    render(corpora[2], tiny_model)
    assert len(rendered) == 3


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_no_keep_rows_leaves_the_cache_alone(command: str, tiny_model: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", [row(number) for number in range(FEWEST)])
    arguments = [command, "--corpus", corpus, "--model", tiny_model, "--out", "out", "--dry-run"]
    for option in ("--no-keep-rows", "--keep-rows"):
        run = Command(*arguments, option, cwd=tmp_path)
        assert run.wait() == 0, run.stderr
        assert (cache_folder() / "rows").exists() == (option == "--keep-rows")


def test_full_disk_costs_only_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rendered: list[str]
) -> None:
    corpus = write(tmp_path / "corpus", [row(number) for number in range(6)])
    monkeypatch.setattr(kept, "SPARE", 10**15)
    one, other = (render(corpus, tiny_model) for _ in range(2))
    assert len(rendered) == 2
    assert contents(one) == contents(other)


def test_run_with_kept_rows_and_weights_makes_the_same_adapter(
    tiny_model: Path, tmp_path: Path, rendered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "LEAST_BYTES", 0)
    corpus = write(tmp_path / "corpus", [labelled(number) for number in range(12)])
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=2, learning_rate=1e-2)
    adapters = [Adapter.open(train(TrainRequest(corpus, tmp_path / f"{n}", recipe)).adapter) for n in range(2)]
    assert len(rendered) == 2  # the training rows and those held out
    assert len([*(cache_folder() / "packed").iterdir()]) == 1
    one, other = (sha256_of(adapter.path / "adapter_model.safetensors") for adapter in adapters)
    assert one == other
    assert adapters[0].manifest["label_tasks"] == adapters[1].manifest["label_tasks"]
    assert adapters[0].manifest["parents"] == adapters[1].manifest["parents"]


CONVERSATIONS = st.lists(
    st.tuples(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=2, max_size=14), st.integers(1, 13)),
    min_size=2,
    max_size=7,
)


@settings(max_examples=60)
@given(CONVERSATIONS, st.booleans())
def test_common_prefixes_are_those_of_each_conversation(drawn: list[tuple[list[int], int]], beginning: bool) -> None:
    start = [7] * SHORTEST_PREFIX if beginning else []
    tokens = [[*start, *each] for each, _ in drawn]
    masks = [
        [place >= min(len(start) + first, len(row) - 1) for place in range(len(row))]
        for row, (_, first) in zip(tokens, drawn, strict=True)
    ]
    rows = TokenRows(
        list(map(str, range(len(tokens) // 2))),
        np.concatenate(tokens).astype(np.int32),
        np.concatenate(masks),
        np.cumsum([len(each) for each in tokens]),
        0,
        0,
    )
    each = [rows[number] for number in range(len(tokens))]
    common = min(min(one.shareable, each[0].count_common_prefix(one)) for one in each)
    assert rows.common_prefix == (common if common >= SHORTEST_PREFIX else 0)
    pairs = replace(rows, ends=rows.ends[: 2 * len(rows.ids)])
    for number, counted in enumerate(pairs.prompts):
        one, other = pairs.conversations(number)
        alike = min(one.shareable, other.shareable, one.count_common_prefix(other))
        assert counted == (alike if alike >= SHORTEST_PREFIX else 0)
