"""Everything that slmtune prints: results to stdout, progress and logs to stderr."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import math
import shutil
import sys
import textwrap
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from finetune.errors import where_raised
from finetune.machine import format_bytes

if TYPE_CHECKING:
    from finetune.evaluate.progress import Step as EvalStep
    from finetune.train import Step

REPORT_EVERY = 0.1  # of the work, if there is no terminal for a progress bar


class Console:
    """Prints according to the common options."""

    def __init__(self) -> None:
        self.out: TextIO = sys.stdout
        self.as_json = self.quiet = self.debug = False
        self.log_format = "text"

    def configure(self, *, as_json: bool, quiet: bool, verbose: bool, log_format: str, debug: bool) -> None:
        """Apply the common options and set up logging."""
        self.as_json, self.quiet, self.debug, self.log_format = as_json, quiet, debug, log_format
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter("%(message)s"))
        # Libraries log through the root logger; their warnings appear only with --verbose.
        logging.basicConfig(
            handlers=[handler], level=logging.WARNING if verbose or debug else logging.ERROR, force=True
        )
        logging.captureWarnings(True)
        logging.getLogger("finetune").setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)

    def silence(self) -> None:
        """Print nothing but an error: another process of this command reports what they do."""
        self.quiet, self.out = True, io.StringIO()
        logging.getLogger("finetune").setLevel(logging.ERROR)

    @contextmanager
    def own_stdout(self) -> Iterator[None]:
        """Reserve stdout for results: what libraries print there (such as wandb's notice) goes to stderr."""
        self.out = sys.stdout
        with redirect_stdout(sys.stderr):
            yield

    def result(self, result: Any, render: Callable[[], str]) -> None:
        """Print a command's result, as JSON or as the text that `render` returns."""
        if self.as_json:
            print(json.dumps(to_json(result), ensure_ascii=False), file=self.out, flush=True)
        else:
            print(render(), file=self.out, flush=True)

    def say(self, text: str) -> None:
        """Print a line of progress to stderr."""
        if not self.quiet:
            if self.log_format == "json":
                text = json.dumps({"time": round(time.time(), 3), "level": "info", "message": text})
            print(text, file=sys.stderr, flush=True)

    def error(self, text: str, cause: Exception | None = None) -> None:
        """Print one paragraph to stderr; with --debug, the traceback of its cause first."""
        if self.debug and cause is not None:
            traceback.print_exception(cause, file=sys.stderr)
        print(f"Error: {' '.join(text.split())}", file=sys.stderr)

    def unexpected(self, error: Exception) -> None:
        """Report an error that slmtune did not foresee: its type, its location and how to see more."""
        hint = "" if self.debug else ". Run again with --debug for the traceback"
        self.error(f"Unexpected {where_raised(error)}{hint}", error)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress of long work: bars on a terminal, otherwise a line for every tenth of the work."""
        if self.quiet:
            yield Progress(lambda name, done, total, detail: None, lambda text: None)
        elif not sys.stderr.isatty() or self.log_format == "json":
            yield Progress(self._lines(), self.say)
        else:
            from rich.console import Console as Terminal
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
            terminal = Terminal(stderr=True, highlight=False)
            with Bars(*columns, TextColumn("{task.fields[detail]}"), console=terminal) as bars:
                tasks: dict[str, Any] = {}

                def update(name: str, done: int, total: int, detail: str) -> None:
                    if name not in tasks:
                        tasks[name] = bars.add_task(name, total=total, detail=detail)
                    bars.update(tasks[name], completed=done, total=total, detail=detail)

                yield Progress(update, lambda text: terminal.print(text, markup=False))

    def ask(self) -> str | None:
        """The next line that a person types or a file contains; None at the end of the input."""
        try:
            if not sys.stdin.isatty():
                return input().strip()
            if not self.out.isatty():
                return input("> ").strip()
            with redirect_stdout(self.out):  # lines can be edited only if both are the terminal
                return input("> ").strip()
        except EOFError:
            return None

    def stream(self, pieces: Iterable[str]) -> None:
        """Print the pieces of an answer as they arrive."""
        for piece in pieces:
            print(piece, end="", file=self.out, flush=True)
        print(file=self.out)

    def _lines(self) -> Callable[[str, int, int, str], None]:
        last: dict[str, int] = {}

        def update(name: str, done: int, total: int, detail: str) -> None:
            tenth = int(done / total / REPORT_EVERY)
            if last.get(name) != tenth:
                last[name] = tenth
                self.say(f"{name}: {done}/{total}{', ' + detail if detail else ''}")

        return update


@dataclasses.dataclass(frozen=True)
class Progress:
    """Receives the progress of long work."""

    update: Callable[[str, int, int, str], None]
    stage: Callable[[str], None]
    _started: dict[str, tuple[float, int]] = dataclasses.field(default_factory=dict)

    def step(self, step: Step, name: str = "training") -> None:
        """Report a finished optimizer step of a run."""
        loss = "" if math.isnan(step.loss) else f"loss {step.loss:.3f}, "
        if "preference_accuracy" in step.figures:
            loss += f"prefers {step.figures['preference_accuracy']:.0%}, "
        detail = f"{loss}{step.tokens_per_second:.0f} tokens/s, {duration(step.remaining)} left"
        self.update(name, step.step, step.steps, detail)

    def trial_step(self, number: int, step: Step) -> None:
        """Report a finished optimizer step of a trial."""
        self.step(step, f"trial {number}")

    def work(self, stage: str, done: int, total: int, unit: str) -> None:
        """Report that `done` of `total` units of a stage are finished, with the rate and the time left."""
        if total <= 0:
            return
        now = time.perf_counter()
        first, start = self._started.setdefault(stage, (now, done))
        seconds, moved = now - first, done - start
        detail = ""
        if seconds > 1 and moved > 0:
            rate = moved / seconds
            speed = f"{format_bytes(rate)}/s" if unit == "bytes" else f"{rate:.0f} {unit}/s"
            detail = f"{speed}, {duration((total - done) / rate)} left"
        self.update(stage, done, total, detail)

    def rows(self, step: EvalStep) -> None:
        """Report a finished batch of rows of an evaluation."""
        left, overall = duration(step.remaining), duration(step.remaining_overall)
        rate = step.rows_per_second
        speed = (
            f"{rate:.0f} rows/s" if rate >= 10 else f"{rate:.1f} rows/s" if rate >= 1 else f"{rate * 60:.1f} rows/min"
        )
        self.update(
            f"{step.task}, {step.contestant}", step.done, step.total, f"{speed}, {left} left ({overall} for everything)"
        )


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time (seconds since the epoch), level and message, and the `fields` of a record that has them."""
        line = {"time": round(record.created, 3), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(line | getattr(record, "fields", {}), ensure_ascii=False)


def to_json(value: Any) -> Any:
    """Dataclasses, pydantic models, paths and tuples as plain JSON values; NaN as null, since JSON has no NaN."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, fold_first: bool = False) -> str:
    """A table as text, at most as wide as the terminal; all columns but the first are right-aligned.

    Args:
        columns: the headings.
        rows: a value for each column.
        fold_first: whether, in a narrow terminal, only the first column is folded.
    """
    from rich.console import Console as Terminal
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        no_wrap = fold_first and number > 0
        grid.add_column(column, justify="left" if number == 0 else "right", overflow="fold", no_wrap=no_wrap)
    for row in rows:
        grid.add_row(*[Text(str(cell)) for cell in row])  # not markup: names may contain brackets
    out = io.StringIO()
    Terminal(file=out, width=_width(), no_color=True, highlight=False).print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def paragraph(text: str) -> str:
    """Text broken between words into lines that fit in the terminal."""
    return textwrap.fill(text, _width(), break_long_words=False, break_on_hyphens=False)


def _width() -> int:
    """Columns of the terminal, or of a page if there is none."""
    return max(shutil.get_terminal_size((110, 24)).columns, 80)


def facts(rows: Mapping[str, object]) -> str:
    """Two columns: names and values."""
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def duration(seconds: float) -> str:
    """Minutes and seconds, such as 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


console = Console()
