"""How far an evaluation is: rows per second, and the time left for a contestant and for the whole evaluation."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from finetune.scoring.tasks import EvalTask

Pending = tuple[str, EvalTask]  # a contestant, and a task that it has yet to answer
Clock = Callable[[], float]  # in seconds


@dataclass(frozen=True)
class Step:
    """Progress after a batch of rows; times in seconds, zero where the clock is too coarse to tell."""

    task: str
    contestant: str
    done: int  # rows of this task that this contestant has answered
    total: int
    rows_per_second: float
    remaining: float  # until this contestant has answered this task
    remaining_overall: float  # until every contestant has answered every task


ProgressCallback = Callable[[Step], None]


class Pace:
    """Estimates the time left from the rows answered so far, whoever answered them.

    A row of a task is assumed to take as long as the rows of that task took on average; if nobody has answered any of them
    yet, as long as all rows did. Several workers share what is left.
    """

    def __init__(
        self,
        pending: Iterable[Pending],
        report: ProgressCallback | None = None,
        clock: Clock = time.monotonic,
        workers: int = 1,
    ) -> None:
        self._left = {(name, task.name): len(task.examples) for name, task in pending}
        self._report, self._clock, self._workers = report, clock, workers
        self._rows: Counter[str] = Counter()  # answered, by task
        self._seconds: dict[str, float] = defaultdict(float)  # that they took, by task

    def start(self, name: str, task: EvalTask) -> Callable[[int], None]:
        """Begin a task; the result is to be called after each batch with the number of its rows."""
        total, started, before = len(task.examples), self._clock(), 0.0

        def on_rows(rows: int) -> None:
            nonlocal before
            seconds = self._clock() - started
            self._rows[task.name] += rows
            self._seconds[task.name] += seconds - before
            before = seconds
            left = self._left[name, task.name] = max(0, self._left[name, task.name] - rows)
            done = total - left
            if self._report and done:
                speed, remaining = done / seconds if seconds else 0.0, left * seconds / done
                overall = (remaining + self._remaining_except(name, task.name)) / self._workers
                self._report(Step(task.name, name, done, total, speed, remaining, max(remaining, overall)))

        return on_rows

    def finish(self, name: str, task: EvalTask) -> None:
        """End a task, also one whose rows were not reported."""
        self._left[name, task.name] = 0

    def _remaining_except(self, name: str, task: str) -> float:
        """Seconds for everything that is left but one contestant's answers to one task."""
        average = sum(self._seconds.values()) / self._rows.total()
        per_row = {one: self._seconds[one] / rows for one, rows in self._rows.items()}
        return sum(
            left * per_row.get(one, average)
            for (member, one), left in self._left.items()
            if (member, one) != (name, task)
        )
