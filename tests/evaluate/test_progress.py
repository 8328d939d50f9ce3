"""The time left of an evaluation follows from the rows that were answered, and is reported on stderr."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.cli.console import Progress
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.progress import Pace, Step
from finetune.records import Example
from finetune.scoring.tasks import EvalTask

from ..command import run
from ..conftest import chat

SHORT = EvalTask("short", "token_f1", tuple(Example(str(n), chat("?", "!"), "qa") for n in range(10)))
LONG = EvalTask("long", "token_f1", tuple(Example(str(n), chat("?", "!"), "qa") for n in range(20)))
PENDING = [(name, task) for name in ("base", "adapter") for task in (SHORT, LONG)]


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_time_left_is_that_of_the_contestant_and_of_the_whole_evaluation() -> None:
    steps: list[Step] = []
    clock = Clock()
    on_rows = Pace(PENDING, steps.append, clock).start("base", SHORT)
    clock.now += 2
    on_rows(4)
    (step,) = steps
    assert (step.task, step.contestant, step.done, step.total) == ("short", "base", 4, 10)
    assert (step.rows_per_second, step.remaining) == (2, 3)
    assert step.remaining_overall == (60 - 4) / 2


def test_a_task_is_as_slow_for_the_next_contestant_as_for_the_one_before() -> None:
    steps: list[Step] = []
    clock = Clock()
    pace = Pace(PENDING, steps.append, clock)
    for task, seconds in ((SHORT, 5), (LONG, 100)):
        on_rows = pace.start("base", task)
        clock.now += seconds
        on_rows(len(task.examples))
        pace.finish("base", task)
    on_rows = pace.start("adapter", SHORT)
    clock.now += 1
    on_rows(2)
    assert steps[-1].remaining == 4
    assert steps[-1].remaining_overall == 4 + 100


def test_rows_that_were_not_reported_are_not_waited_for() -> None:
    steps: list[Step] = []
    clock = Clock()
    pace = Pace([("base", SHORT), ("adapter", SHORT)], steps.append, clock)
    pace.finish("base", SHORT)
    on_rows = pace.start("adapter", SHORT)
    clock.now += 1
    on_rows(10)
    assert steps[-1].remaining_overall == 0


def test_evaluation_reports_every_row_and_its_stages(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    stages: list[str] = []
    request = EvalRequest(
        *(tiny_adapter, tiny_corpus, tmp_path / "eval"), batch_size=2, max_new_tokens=4, forgetting=False
    )
    result = evaluate(request, steps.append, stages.append)
    last = {(step.task, step.contestant): step for step in steps}
    assert {key: step.done for key, step in last.items()} == {
        (name, contestant): task.n
        for name, task in result.tasks.items()
        for contestant in ("base", "few_shot", "adapter")
    }
    assert steps[0].remaining_overall > steps[0].remaining > 0
    assert steps[-1].remaining_overall == 0
    assert stages == ["Loading base, few_shot, adapter"]


@pytest.mark.parametrize(
    ("rate", "text"), [(12.3, "12 rows/s"), (1.26, "1.3 rows/s"), (0.051, "3.1 rows/min")], ids=str
)
def test_slow_models_have_a_speed_that_is_not_zero(rate: float, text: str) -> None:
    details: list[str] = []
    Progress(lambda *line: details.append(str(line[-1])), print).rows(Step("news", "base", 1, 9, rate, 75.0, 200.0))
    assert details == [f"{text}, 1:15 left (3:20 for everything)"]


def test_progress_lines_tell_the_speed_and_the_time_left(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    words = ["eval", tiny_adapter, "--corpus", tiny_corpus, "--task", "news", "--out", "eval", "--no-forgetting"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("news, adapter: ")]
    assert lines
    assert lines[-1].endswith(" left (0:00 for everything)")
