"""An interrupted evaluation goes on where it stopped: finished answers are taken over if nothing that decides them changed."""

from __future__ import annotations

import json
import logging
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import MemoryFullError, OutputInUseError, StoppedError
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.answers import Answers
from finetune.evaluate.progress import Step
from finetune.evaluate.store import AnswerStore
from finetune.records import Example
from finetune.scoring.tasks import EvalTask

from ..command import Command
from ..conftest import chat

TAKEN = "Taking over the answers of"


def figures(report: Path) -> dict[str, Any]:
    """Everything in report.json that does not depend on when the evaluation ran."""
    data: dict[str, Any] = json.loads(report.with_name("report.json").read_text("utf-8"))
    return {name: value for name, value in data.items() if name not in ("created", "seconds", "peak_memory_bytes")}


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(".eval.answers/*.json"))


def at(contestant: str, task: str, act: Callable[[], object]) -> Callable[[Step], None]:
    """A callback that acts at the first batch of a task."""

    def on_progress(step: Step) -> None:
        if (step.contestant, step.task) == (contestant, task):
            act()

    return on_progress


@pytest.fixture(scope="module")
def whole(tiny_adapter: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an evaluation that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    return evaluate(
        EvalRequest(tiny_adapter, tiny_corpus, folder / "eval", max_new_tokens=8, batch_size=1, forgetting=False)
    ).report


@pytest.fixture
def request_(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> EvalRequest:
    return EvalRequest(
        *(tiny_adapter, tiny_corpus, tmp_path / "eval"),
        batch_size=1,
        max_new_tokens=8,
        forgetting=False,
        resume_command="slmtune eval …",
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_evaluation_resumes_to_the_same_report(
    whole: Path, tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = [
        "eval",
        tiny_adapter,
        "--corpus",
        tiny_corpus,
        "--out",
        "eval",
        "--max-new-tokens",
        "8",
        "--batch-size",
        "1",
        "--no-forgetting",
    ]
    first = Command(*words, cwd=tmp_path)
    assert first.until(lambda: files(tmp_path)), first.stderr
    first.send(number)
    code = first.wait()
    assert code == (-9 if number == signal.SIGKILL else 128 + number), first.stderr
    assert not (tmp_path / "eval").exists()
    kept = len(files(tmp_path))
    assert 1 <= kept < 6
    if number != signal.SIGKILL:
        error = first.stderr.strip().splitlines()[-1]
        assert error.startswith(f"Error: Stopped by {number.name}. The answers to {kept} of 6 tasks")
        assert error.endswith(f"Continue with: slmtune {' '.join(str(word) for word in words)}")
        assert "Traceback" not in first.stderr
    again = Command(*words, cwd=tmp_path)
    assert again.wait() == 0, again.stderr
    assert again.stderr.count(TAKEN) == kept
    assert figures(tmp_path / "eval" / "report.html") == figures(whole)
    assert (tmp_path / "eval" / "samples.jsonl").read_bytes() == (whole.parent / "samples.jsonl").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["eval"]


def test_answers_are_private_and_taken_over(
    whole: Path, request_: EvalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoppedError, match=r"The answers to 5 of 6 tasks, .* Continue with: slmtune eval …"):
        evaluate(request_, at("adapter", "questions", lambda: signal.raise_signal(signal.SIGINT)))
    folder = request_.output_dir.with_name(".eval.answers")
    assert folder.stat().st_mode & 0o777 == 0o700
    caplog.set_level(logging.INFO)
    result = evaluate(replace(request_, batch_size=3))  # less memory than before
    assert caplog.text.count(TAKEN) == 5
    assert figures(result.report) == figures(whole)
    assert not folder.exists()


def test_models_whose_answers_are_all_there_are_not_loaded(request_: EvalRequest) -> None:
    with pytest.raises(StoppedError):
        evaluate(request_, at("adapter", "questions", lambda: signal.raise_signal(signal.SIGINT)))
    evaluate(replace(request_, tasks=("news",)), on_stage=lambda stage: pytest.fail(stage))


def test_full_memory_keeps_the_answers_and_suggests_a_smaller_batch(
    request_: EvalRequest, caplog: pytest.LogCaptureFixture
) -> None:
    def fill() -> None:
        raise MemoryError

    with pytest.raises(MemoryFullError, match=r"5 of 6 tasks.*Continue with: slmtune eval … --batch-size 1"):
        evaluate(replace(request_, batch_size=2), at("adapter", "questions", fill))
    caplog.set_level(logging.INFO)
    evaluate(request_)
    assert caplog.text.count(TAKEN) == 5


@pytest.mark.parametrize("change", [{"max_new_tokens": 4}, {"limit": 2}, {"split": "validation"}], ids=str)
def test_answers_to_other_questions_are_not_taken_over(
    request_: EvalRequest, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoppedError):
        evaluate(request_, at("adapter", "questions", lambda: signal.raise_signal(signal.SIGINT)))
    caplog.set_level(logging.INFO)
    evaluate(replace(request_, **change))
    assert TAKEN not in caplog.text
    assert not request_.output_dir.with_name(".eval.answers").exists()


@pytest.mark.parametrize("damage", [b"", b"\x00\xff", b"0" * 64 + b'\n{"answers":{"texts":["neutral"]}}', None])
def test_damaged_answers_are_given_again(
    whole: Path, request_: EvalRequest, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoppedError):
        evaluate(request_, at("adapter", "questions", lambda: signal.raise_signal(signal.SIGINT)))
    for path in files(request_.output_dir.parent):
        text = path.read_bytes()
        path.write_bytes(text.replace(b"neutral", b"bullish").replace(b"It", b"at") if damage is None else damage)
    result = evaluate(request_)
    assert "are damaged and are not used" in caplog.text
    assert figures(result.report) == figures(whole)


def test_second_evaluation_into_a_folder_is_refused_during_the_first(request_: EvalRequest) -> None:
    def second() -> None:
        with pytest.raises(OutputInUseError, match="is writing to"):
            evaluate(request_)

    evaluate(request_, at("base", "news", second))


def test_every_number_survives(tmp_path: Path) -> None:
    task = EvalTask("pairs", "preference_accuracy", tuple(Example(str(n), chat("?", "!"), "qa") for n in range(2)))
    given = Answers(["a", "b"], [{"chosen": 0.1}, {"chosen": 1 / 3}], logprobs=[(-math.inf, -1e-310), (-0.1, -1e300)])
    store = AnswerStore(tmp_path, {}, [])
    store.write(task, "base", "weights", given)
    assert store.read(task, "base", "weights") == given
    assert store.read(task, "base", "other weights") is None
