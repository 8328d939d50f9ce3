"""Worker processes: each sees a GPU of its own, and what goes wrong or is logged in one reaches the command."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import pytest

from finetune.errors import SlmtuneError
from finetune.launcher import GPUS
from finetune.workers import Done, Workers, call_silently


class Work:
    """What a worker does, by a word."""

    def __call__(self, word: str, say: Callable[[str], None]) -> str | None:
        if word == "log":
            logging.getLogger("finetune.work").warning("%d rows", 3)
        elif word == "fill":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory")
        elif word == "fail":
            raise ValueError("the text of a row")
        return os.environ.get(GPUS)


def ask(*words: str) -> list[str | None]:
    """What as many workers as there are words return."""
    results: dict[str, str | None] = {}
    with Workers[str, str, str | None](len(words), Work()) as workers:
        for number, word in enumerate(words):
            workers.begin(number, word)
        while workers.busy:
            results |= {word.item: word.result for word in workers.listen() if isinstance(word, Done)}
    return [results[word] for word in words]


@pytest.mark.usefixtures("two_cores")
def test_each_worker_sees_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GPUS, "4,GPU-5")
    assert ask("one", "two") == ["4", "GPU-5"]


@pytest.mark.usefixtures("two_cores")
def test_what_a_worker_logs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ask("log")
    assert [(record.name, record.message) for record in caplog.records] == [("finetune.work", "3 rows")]


@pytest.mark.usefixtures("two_cores")
def test_full_memory_and_other_errors_of_a_worker_are_told_apart_and_keep_its_text_private() -> None:
    with pytest.raises(MemoryError):
        ask("fill")
    with pytest.raises(SlmtuneError, match=r"^A worker failed: unexpected ValueError in test_workers.py:\d+$"):
        ask("fail")


def test_a_process_prints_nothing_that_its_imports_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    program = "import sys\nprint('imported', file=sys.stderr)\n\ndef begin(file):\n    file.touch()\n"
    (tmp_path / "talkative.py").write_text(program, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    begin = pickle.dumps(import_module("talkative").begin)
    assert "imported" in capfd.readouterr().err
    process = get_context("spawn").Process(target=call_silently, args=(begin, tmp_path / "begun"))
    process.start()
    process.join(60)
    assert (tmp_path / "begun").exists()
    assert capfd.readouterr() == ("", "")
