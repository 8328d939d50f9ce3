"""Evaluations whose models are asked side by side: the same report, also after a killed worker and a signal."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import psutil
import pytest

from finetune.errors import InputError, LostProcessError, StoppedError
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.progress import Step

from ..command import Command
from ..side_by_side import fork_workers
from .test_store import TAKEN, figures, files


@pytest.fixture
def asked(tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path) -> EvalRequest:
    """Four contestants, of which one has weights of its own."""
    return EvalRequest(
        *(tiny_adapter, tiny_corpus, tmp_path / "eval"),
        vs=(f"plain={tiny_model}",),
        batch_size=1,
        max_new_tokens=8,
        forgetting=False,
        resume_command="slmtune eval …",
    )


def at_third(act: Callable[[], object]) -> Callable[[Step], None]:
    """A callback that acts at the third pair of contestant and task: of two workers, one has then finished its first."""
    seen: list[tuple[str, str]] = []

    def on_progress(step: Step) -> None:
        pair = (step.contestant, step.task)
        if pair not in seen:
            seen.append(pair)
            if len(seen) == 3:
                act()

    return on_progress


@pytest.mark.usefixtures("two_cores")
def test_two_workers_write_the_report_of_one_also_if_they_are_killed(
    asked: EvalRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    alone = evaluate(asked)
    stages: list[str] = []
    together = replace(asked, output_dir=tmp_path / "beside" / "eval", workers=2)
    with pytest.raises(LostProcessError, match=r"was killed by SIGKILL, .* of 8 tasks, .* with: slmtune eval …"):
        evaluate(together, at_third(lambda: os.kill(active_children()[0].pid or 0, signal.SIGKILL)), stages.append)
    with pytest.raises(StoppedError, match="Stopped by SIGINT"):
        evaluate(together, at_third(lambda: signal.raise_signal(signal.SIGINT)))
    assert not active_children()
    kept = len(files(tmp_path / "beside"))
    caplog.clear()
    result = evaluate(together)
    assert 2 <= kept < 8
    assert caplog.text.count(TAKEN) == kept
    assert {"Loading base, few_shot, adapter", "Loading plain"} <= set(stages)
    assert figures(result.report) == figures(alone.report)
    assert (result.report.parent / "samples.jsonl").read_bytes() == (alone.report.parent / "samples.jsonl").read_bytes()
    assert [path.name for path in (tmp_path / "beside").iterdir()] == ["eval"]


def test_workers_end_with_a_killed_command(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    words = ["eval", tiny_adapter, "--corpus", tiny_corpus, "--out", "eval", "--workers", 2, "--batch-size", 1]
    command = Command(*words, cwd=tmp_path, before=fork_workers)
    assert command.until(lambda: len(psutil.Process(command.pid).children()) == 2), command.stderr
    workers = psutil.Process(command.pid).children()
    command.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


def test_more_workers_than_cores_are_refused(asked: EvalRequest) -> None:
    with pytest.raises(InputError, match=r"--workers 1000 is more than this machine has: .* Use at most --workers \d+"):
        evaluate(replace(asked, workers=1000))
