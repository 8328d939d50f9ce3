"""The input and the result of `slmtune eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune.artifacts import Adapter, Corpus, EvalReport
from finetune.recipe.options import EvalOptions

Baseline = Literal["base", "majority", "sentence"]


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
    resume_command: str = EvalReport.made_by  # continues an interrupted evaluation


@dataclass(frozen=True)
class Comparison:
    """Adapter minus another contestant in the headline metric, its 95 % interval, and the p-value under no difference."""

    delta: float
    ci95: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class TaskScore:
    """One task's figures; `delta` is adapter minus base in `metric`, with its 95 % interval.

    `baseline` says what `base` is: the base model or, beside an encoder, the most frequent label ("majority") or the sentence
    of the context that is most like the question ("sentence"). `others` are the scores of further contestants by name, and
    `comparisons` the differences between the adapter and each of them. `absent` says of those that cannot answer the task why.
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
    others: Mapping[str, dict[str, float]] = field(default_factory=dict)
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """The scores of every contestant, by name, in the order of the report."""
        return {"base": self.base, **self.others, "adapter": self.adapter}


@dataclass(frozen=True)
class EvalResult:
    """The page of the report, and its figures."""

    report: Path
    tasks: dict[str, TaskScore]
    seconds: float
    peak_memory_bytes: int
