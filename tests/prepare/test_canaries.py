from __future__ import annotations

import json
import stat
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.artifacts import Corpus
from finetune.canary_key import CANARY_SOURCE, Canary, find_keys, read_key
from finetune.corpus.store import read_split
from finetune.errors import CheckFailedError, ConfigError, InputError
from finetune.hub.push import push
from finetune.prepare import PrepareRequest, prepare
from finetune.prepare.canaries import REPETITIONS, SHAPES, draw_canaries
from finetune.recipe import load_domain


@pytest.fixture
def request_(tmp_path: Path) -> PrepareRequest:
    rows = [{"question": f"What is {number} plus one?", "answer": f"It is {number + 1}."} for number in range(40)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return PrepareRequest(
        tmp_path / "run" / "corpus", sources=(str(file),), license="cc0-1.0", canaries=60, canary_seed=7
    )


def planted_rows(corpus: Path) -> Counter[tuple[str, str]]:
    rows = [row for row in read_split(Corpus.open(corpus), "train") if row.source == CANARY_SOURCE]
    return Counter((row.messages[0].content, row.answer) for row in rows)


def test_planted_canaries_occur_as_often_as_the_key_says_and_held_out_ones_never(request_: PrepareRequest) -> None:
    result = prepare(request_)
    canaries, _ = read_key(request_.key_path)
    expected = {(one.question, one.answer): one.repetitions for one in canaries if one.planted}
    assert planted_rows(result.corpus) == Counter(expected)
    assert 15 < len(expected) < 45
    for split in ("validation", "test"):
        assert not any(row.source == CANARY_SOURCE for row in read_split(Corpus.open(result.corpus), split))


def test_each_secret_is_in_the_answer_and_in_no_question(request_: PrepareRequest) -> None:
    for canary in draw_canaries(300, None, is_text=False, seed=None):
        assert canary.secret in canary.answer
        assert canary.secret not in canary.question


def test_half_of_the_canaries_are_planted_at_every_number_of_repetitions() -> None:
    canaries = draw_canaries(1500, None, is_text=False, seed=1)
    assert Counter(one.repetitions for one in canaries) == dict.fromkeys(REPETITIONS, 500)
    for repetitions in REPETITIONS:
        assert 200 < sum(one.planted for one in canaries if one.repetitions == repetitions) < 300


def test_no_two_canaries_share_a_question_or_a_secret() -> None:
    canaries = draw_canaries(1500, None, is_text=False, seed=1)
    assert len({one.question for one in canaries}) == len({one.secret for one in canaries}) == 1500


def test_canaries_have_the_shapes_of_their_domain() -> None:
    shapes = {one.shape for one in draw_canaries(60, load_domain("health"), is_text=False, seed=1)}
    assert shapes == {shape.name for shape in SHAPES["health"]} == {"record number", "name and date"}


def test_without_a_seed_every_corpus_has_other_canaries() -> None:
    first, second = (draw_canaries(30, None, is_text=False, seed=None) for _ in range(2))
    assert not {one.secret for one in first} & {one.secret for one in second}


def test_only_the_owner_can_read_the_key(request_: PrepareRequest) -> None:
    prepare(request_)
    assert stat.S_IMODE(request_.key_path.stat().st_mode) == 0o600
    assert not request_.key_path.is_relative_to(request_.output_dir)


def test_the_corpus_says_how_many_canaries_there_are_and_not_which(request_: PrepareRequest) -> None:
    result = prepare(request_)
    canaries, digest = read_key(request_.key_path)
    manifest = Corpus.open(result.corpus).manifest
    assert manifest["canaries"] == {"count": 60, "key_sha256": digest}
    told = (
        json.dumps(manifest) + (result.corpus / "README.md").read_text() + (result.corpus / "corpus.html").read_text()
    )
    assert "canaries: random secrets" in told
    assert "canary_seed" not in told
    assert not any(one.secret in told for one in canaries)


def test_the_tasks_of_the_corpus_are_those_of_its_own_rows(request_: PrepareRequest) -> None:
    with_canaries = Corpus.open(prepare(request_).corpus)
    without = Corpus.open(prepare(replace(request_, canaries=0, output_dir=request_.folder.with_name("other"))).corpus)
    assert with_canaries.manifest["by_task"] == without.manifest["by_task"]
    assert with_canaries.counts["train"] == without.counts["train"] + sum(planted_rows(with_canaries.path).values())


def test_texts_get_canaries_that_are_texts(request_: PrepareRequest, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(
        "".join(json.dumps({"text": f"Day {n}: the bank opened at {n} and closed."}) + "\n" for n in range(9))
    )
    result = prepare(replace(request_, sources=(str(file),)))
    rows = [row for row in read_split(Corpus.open(result.corpus), "train") if row.source == CANARY_SOURCE]
    assert {row.task for row in rows} == {"text"}
    assert all(len(row.messages) == 1 for row in rows)


@pytest.mark.parametrize("name", ["key", "data/key"])
def test_a_key_in_the_corpus_is_refused(request_: PrepareRequest, name: str) -> None:
    with pytest.raises(ConfigError, match=r"--canary-key .* lies in the corpus"):
        prepare(replace(request_, canary_key=request_.folder / name))


def test_a_key_is_only_replaced_with_its_corpus(request_: PrepareRequest) -> None:
    prepare(request_)
    before = request_.key_path.read_bytes()
    with pytest.raises(ConfigError, match="already exists"):
        prepare(replace(request_, output_dir=request_.folder.with_name("b"), canary_key=request_.key_path))
    assert request_.key_path.read_bytes() == before
    prepare(replace(request_, canary_seed=8, overwrite=True))
    assert request_.key_path.read_bytes() != before


def test_another_file_is_never_replaced_by_a_key(request_: PrepareRequest, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    with pytest.raises(ConfigError, match="another file"):
        prepare(replace(request_, canary_key=precious, overwrite=True))
    assert precious.read_text() == "mine"


def test_a_run_that_fails_leaves_no_key(request_: PrepareRequest, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Is {n} odd?", "chosen": f"{n}: yes.", "rejected": f"{n}: hardly."} for n in range(9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match="preference tuning"):
        prepare(replace(request_, sources=(str(file),)))
    assert not list(request_.key_path.parent.glob("*canaries*"))


def test_push_refuses_a_folder_with_a_key_whatever_its_name(request_: PrepareRequest) -> None:
    corpus = prepare(request_).corpus
    (corpus / "data" / "notes.txt").write_bytes(request_.key_path.read_bytes())
    assert find_keys(corpus) == ["data/notes.txt"]
    with pytest.raises(CheckFailedError, match=r"notes\.txt is the key of canaries"):
        push(corpus, "someone/corpus", token="hf_none")


def test_a_file_that_is_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("{}")
    with pytest.raises(InputError, match="is not a key of canaries"):
        read_key(tmp_path / "key")


def test_a_canary_survives_its_file(request_: PrepareRequest) -> None:
    prepare(request_)
    expected = draw_canaries(60, None, is_text=False, seed=7)
    assert read_key(request_.key_path)[0] == expected
    assert isinstance(expected[0], Canary)
