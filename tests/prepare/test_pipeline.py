"""The pipeline as a whole: one worker or two, in one go or after a kill, the corpus has the same bytes."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune.artifacts import MANIFEST
from finetune.errors import SlmtuneError
from finetune.prepare import PrepareRequest, prepare
from finetune.prepare.engines.local import ordered_map

from ..command import Command, run
from .conftest import Preparer, questions, write_jsonl

WORDS = ["market", "river", "doctor", "loan", "garden", "yield", "muscle", "window", "tariff", "bridge", "signal"]


def texts(count: int, seed: int = 1) -> list[dict[str, str]]:
    """Documents of 60 to 90 words; every fifth nearly repeats an earlier one."""
    draw, made = random.Random(seed), list[list[str]]()
    for number in range(count):
        if number % 5 == 4:
            words = list(made[draw.randrange(len(made))])
            words[draw.randrange(len(words))] = "changed"
        else:
            words = [f"{draw.choice(WORDS)}{draw.randrange(300)}" for _ in range(draw.randint(60, 90))]
        made.append(words)
    return [{"text": " ".join(words).capitalize() + "."} for words in made]


def files_of(corpus: Path) -> dict[str, bytes]:
    """All files of a corpus but the manifest, which holds the time."""
    return {
        path.relative_to(corpus).as_posix(): path.read_bytes()
        for path in sorted(corpus.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five thousand documents, 3 MB: enough for several blocks and for worker processes."""
    return write_jsonl(tmp_path_factory.mktemp("big") / "big.jsonl", texts(5_000))


@pytest.fixture(scope="module")
def whole(big: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus that one worker makes of it in one go."""
    out = tmp_path_factory.mktemp("whole") / "corpus"
    done = run(*preparing(big, out), "--workers", 1, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return out


def preparing(source: Path, out: Path) -> list[object]:
    """Arguments of `slmtune prepare`."""
    return ["prepare", "--source", source, "--output-dir", out]


@pytest.mark.slow
def test_one_worker_and_two_make_the_same_bytes(big: Path, whole: Path, tmp_path: Path) -> None:
    done = run(*preparing(big, tmp_path / "two"), "--workers", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = files_of(tmp_path / "two")
    assert made == files_of(whole)
    assert {"clusters.jsonl", "drops.jsonl", "corpus.html", "data/train-00000-of-00001.parquet"} <= set(made)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_ended_goes_on_and_makes_the_same_bytes(
    how: signal.Signals, big: Path, whole: Path, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    running = Command(*preparing(big, ended), "--workers", 2, cwd=tmp_path)
    work = tmp_path / ".ended.work"
    deadline = time.monotonic() + 60
    running.until(lambda: list(work.glob("rows-*.arrow")) or time.monotonic() > deadline)
    workers = psutil.Process(running.pid).children(recursive=True)
    running.send(how)
    assert running.wait() in {-signal.SIGKILL, 130, 143}
    assert workers
    assert not psutil.wait_procs(workers, timeout=30)[1]
    assert not ended.exists()
    assert work.is_dir()
    assert list(work.glob("rows-*.arrow"))
    result = run(*preparing(big, ended), "--workers", 2, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert files_of(ended) == files_of(whole)
    assert json.loads(result.stdout)["dropped"]["near_duplicate"] > 0
    assert [path.name for path in tmp_path.iterdir() if "work" in path.name] == []


def test_a_shard_that_is_there_is_not_made_again(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", questions(30))
    out = tmp_path / "out"
    told: list[str] = []

    def stop(stage: str, done: int, total: int, unit: str) -> None:
        told.append(stage)
        if stage == "compare":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(PrepareRequest(out, sources=(str(source),)), stop)
    (shard,) = (tmp_path / ".out.work").glob("rows-*.arrow")
    before = shard.stat()
    assert before.st_mode & 0o077 == 0 or (tmp_path / ".out.work").stat().st_mode & 0o077 == 0
    stages: list[str] = []
    prepare(PrepareRequest(out, sources=(str(source),)), lambda stage, *_: stages.append(stage))
    assert "read" in told
    assert "read" not in stages
    assert not (tmp_path / ".out.work").exists()


def test_a_file_that_changed_is_read_again(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", questions(30))
    request = PrepareRequest(tmp_path / "out", sources=(str(source),))

    def stop(stage: str, *_: object) -> None:
        if stage == "compare":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(request, stop)
    write_jsonl(source, questions(31))
    assert sum(prepare(request).splits.values()) == 31


def test_an_error_leaves_no_text_behind(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "A secret that nobody should find in a hidden folder."}\n{"text": \n', "utf-8")
    with pytest.raises(SlmtuneError):
        prepare(PrepareRequest(tmp_path / "out", sources=(str(source),)))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def _double(number: int) -> int:
    return 2 * number


def _fail(number: int) -> int:
    if number == 5:
        raise SlmtuneError("five")
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_errors_as_they_are(workers: int) -> None:
    assert list(ordered_map(_double, range(50), workers)) == list(range(0, 100, 2))
    with pytest.raises(SlmtuneError, match="five"):
        list(ordered_map(_fail, range(50), workers))


def test_every_error_travels_between_processes() -> None:
    import pickle

    from finetune import errors

    made: list[Any] = [
        errors.RecordError("file:3", "no"),
        errors.ConfigError("x", ["a", "b"]),
        errors.UnknownNameError("model", "smol", ["smollm"]),
        errors.InputError("plain"),
        errors.Unusable("no_text", "the file is blank"),
    ]
    for error in made:
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.__dict__) == (type(error), str(error), error.__dict__)
