"""The input and the result of `slmtune eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune.artifacts import Adapter, Corpus, EvalReport
from finetune.evaluate.details import Interval, ModelDetails
from finetune.recipe.options import EvalOptions

Scores = Mapping[str, float | None]  # by metric
HARNESS = "lm-eval/"  # before the names of tasks of lm-evaluation-harness
Baseline = Literal["base", "majority", "sentence"]


@dataclass(frozen=True)
class EvalRequest(EvalOptions):
    """What to evaluate, on which rows, and where to put the report; `domain` has the sources that `tasks` can name."""

    adapter: Path
    corpus: Path | str | None
    output_dir: Path
    model: str | None = None
    overwrite: bool = False
    domain: str | None = None
    train_command: str = Adapter.made_by  # suggested if the adapter is missing
    prepare_command: str = Corpus.made_by
    resume_command: str = EvalReport.made_by  # continues an interrupted evaluation


@dataclass(frozen=True)
class Comparison:
    """Adapter minus another contestant in the headline metric, its 95 % interval, and the p-value under no difference.

    The p-value is that of a sign-flip permutation test. `better` and `worse` count the rows on which the adapter's answer
    scores higher or lower. Where an answer is either right or wrong, McNemar's exact test compares these two counts.
    """

    delta: float
    ci95: Interval
    p_value: float
    better: int = 0
    worse: int = 0
    mcnemar_p_value: float | None = None


@dataclass(frozen=True)
class CleanScore:
    """The figures of a task without the rows on which the adapter was trained."""

    n: int
    base: Scores
    adapter: Scores
    delta: float
    ci95: Interval


@dataclass(frozen=True)
class TaskScore:
    """One task's figures; `delta` is adapter minus base in `metric`, with its 95 % interval.

    `baseline` says what `base` is: the base model or, beside an encoder, the most frequent label ("majority") or the sentence
    of the context that is most like the question ("sentence"). `few_shot` is the base model with `shots` examples in the
    prompt, `vs` further contestants by name; `comparisons` are the differences between the adapter and each of the others, and
    `details` what stands behind the scores of each contestant. `absent` says of those that cannot answer the task why.

    A score that these rows do not define is None, and `undefined` has its reason. `majority` and `random` are the accuracies
    of answers that look at no row, and `guesses` all their scores. Two scores with equal `rows_hash` are about the same rows.
    `scorer` is the program that asked and scored, if that is not slmtune itself.

    `train_overlap` counts the rows on which the adapter was trained, None if this machine does not know; `clean` has the
    figures without these.
    """

    n: int
    metric: str
    majority: float | None
    majority_label: str | None
    base: Scores
    adapter: Scores
    delta: float
    ci95: Interval
    p_value: float
    baseline: Baseline = "base"
    few_shot: Scores | None = None
    shots: int = 0
    vs: Mapping[str, Scores] = field(default_factory=dict)
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, ModelDetails] = field(default_factory=dict)
    random: float | None = None
    guesses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)
    scorer: str = ""
    rows_hash: str = ""
    train_overlap: int | None = None
    clean: CleanScore | None = None

    @property
    def scores(self) -> dict[str, Scores]:
        """The scores of every contestant, by name, in the order of the report."""
        few_shot = {} if self.few_shot is None else {"few_shot": self.few_shot}
        return {"base": self.base, **few_shot, **self.vs, "adapter": self.adapter}

    @property
    def headline(self) -> dict[str, float]:
        """The score of every contestant in `metric`, which is always defined."""
        return {name: float(scores[self.metric] or 0) for name, scores in self.scores.items()}


@dataclass(frozen=True)
class GateResult:
    """A condition of --gate, the value of its figure, and whether it is met; without a value, `reason` says why."""

    condition: str
    value: float | None
    passed: bool
    reason: str | None = None


@dataclass(frozen=True)
class ScoreDrop:
    """How many of `n` items of the probe base and adapter answer rightly, as shares; `drop` is base minus adapter."""

    n: int
    base: float
    adapter: float
    drop: float
    ci95: Interval


@dataclass(frozen=True)
class PerplexityChange:
    """The perplexity of `n` passages of general prose per token; `ratio` is that of the adapter divided by the base's."""

    n: int
    tokens: int
    base: float
    adapter: float
    ratio: float
    ci95: Interval


@dataclass(frozen=True)
class Forgetting(ScoreDrop):
    """What the adapter has forgotten of a general probe, on the whole and by category of items."""

    p_value: float
    categories: Mapping[str, ScoreDrop]
    perplexity: PerplexityChange


@dataclass(frozen=True)
class EvalResult:
    """The page of the report, and its figures; nothing is measured of forgetting by an encoder or if it is not asked for."""

    report: Path
    tasks: dict[str, TaskScore]
    seconds: float
    peak_memory_bytes: int
    gate: tuple[GateResult, ...] = ()
    forgetting: Forgetting | None = None
