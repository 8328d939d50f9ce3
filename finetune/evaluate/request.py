"""The input and the result of `slmtune eval`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.artifacts import Adapter, Corpus
from finetune.recipe.options import EvalOptions

Baseline = Literal["base", "majority", "sentence"]
# (task, model, rows done, rows in all)
ProgressCallback = Callable[[str, str, int, int], None]


@dataclass(frozen=True)
class EvalRequest(EvalOptions):
    """What to evaluate, on which rows, and where to put the report."""

    adapter: Path
    corpus: Path
    output_dir: Path
    model: str | None = None
    overwrite: bool = False
    train_command: str = Adapter.made_by  # suggested if the adapter is missing
    prepare_command: str = Corpus.made_by


@dataclass(frozen=True)
class TaskScore:
    """One task's figures; `delta` is adapter minus base in `metric`, with its 95 % interval.

    `baseline` says what `base` is: the base model or, beside an encoder, the most frequent label ("majority") or the sentence
    of the context that is most like the question ("sentence").
    """

    n: int
    metric: str
    majority: float | None
    majority_label: str | None
    base: dict[str, float]
    adapter: dict[str, float]
    delta: float
    ci95: tuple[float, float]
    p_value: float
    baseline: Baseline = "base"


@dataclass(frozen=True)
class EvalResult:
    """The page of the report, and its figures."""

    report: Path
    tasks: dict[str, TaskScore]
    seconds: float
    peak_memory_bytes: int
