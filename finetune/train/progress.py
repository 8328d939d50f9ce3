"""The progress and the outcome of a run: what is counted, reported after each step and stored in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FIGURES = ("preference_accuracy", "reward_margin", "chosen_reward", "rejected_reward")  # of preference tuning
SCORES = ("weighted_f1", "macro_f1", "micro_f1", "accuracy", "answer_f1", "exact_match")  # of validation rows


@dataclass(frozen=True)
class Counts:
    """Tokens of training batches."""

    tokens: int = 0  # of the rows, without padding
    computed_tokens: int = 0  # passed through the model; fewer than `tokens` if rows share a prefix
    supervised_tokens: int = 0
    pairs: int = 0  # of answers, in preference tuning

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def terms(self) -> int:
        """The number of terms that the loss is the mean of: pairs of answers, rows of an encoder, or supervised tokens."""
        return self.pairs or self.supervised_tokens


@dataclass(frozen=True)
class Figures:
    """What is measured beside the loss, by name, summed over its terms."""

    terms: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Figures) -> Figures:
        names = dict.fromkeys([*self.sums, *other.sums])
        sums = {name: self.sums.get(name, 0.0) + other.sums.get(name, 0.0) for name in names}
        return Figures(self.terms + other.terms, sums)

    @property
    def means(self) -> dict[str, float]:
        """Each figure, per term."""
        return {name: total / max(self.terms, 1) for name, total in self.sums.items()}


@dataclass(frozen=True, kw_only=True)
class Step:
    """Progress after an optimizer step; loss in nats per supervised token or pair of answers, times in seconds."""

    step: int
    steps: int
    epoch: float
    loss: float
    tokens_per_second: float
    remaining: float
    figures: Mapping[str, float] = field(default_factory=dict)  # beside the loss, see FIGURES


@dataclass(frozen=True)
class Evaluation:
    """The scores of the weights after a step on the validation split: loss, and whatever else is measured."""

    step: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Evaluations:
    """The best and the newest evaluation of a run, and how many followed the best."""

    best: Evaluation | None = None
    newest: Evaluation | None = None
    later: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Evaluations:
        """The evaluations in the form of `asdict`."""
        best, newest = (Evaluation(**values[name]) if values[name] else None for name in ("best", "newest"))
        return cls(best, newest, values["later"])


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """The counters that the Trainer would restart at zero; losses are sums as in the Trainer, times are in seconds."""

    counts: Counts
    seconds: float
    evaluating: float
    shown_loss: float | None
    loss_since_log: float
    loss_before_log: float
    last_logged: int
    evaluation_due: bool
    figures: Figures  # since the last logged step
    evaluations: Evaluations

    def write(self, file: Path) -> None:
        """Write the counters as one JSON object."""
        values = asdict(self)
        file.write_text(json.dumps(values.pop("counts") | values) + "\n", "utf-8")

    @classmethod
    def read(cls, file: Path) -> TrainProgress:
        """Read a file written by `write`."""
        values = json.loads(file.read_text("utf-8"))
        counts = Counts(**{each.name: values.pop(each.name) for each in fields(Counts)})
        figures, evaluations = Figures(**values.pop("figures")), Evaluations.of(values.pop("evaluations"))
        return cls(counts=counts, figures=figures, evaluations=evaluations, **values)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A fitted model and the figures of the fit; losses in nats per supervised token or pair of answers."""

    model: Any  # a PeftModel
    first: Mapping[str, Tensor]  # the first weights of its adapter, if these and the base model are entangled
    steps: int
    epochs: float
    planned_steps: int
    train_loss: float
    held_out: Mapping[str, float]  # loss and other figures of these weights; empty if they were not measured
    metric: str | None  # the one of them that decided which step's weights these are
    adapter_step: int  # that step
    counts: Counts
    seconds: float
    seconds_before: float  # of which before the run was resumed
    precision: str  # of matrix products, as `AdapterRecipe.compute_dtype` names it
    truncated: int  # number of truncated training rows
    held_out_truncated: int
    resumed_from: str | None  # name of a checkpoint
    peak_memory_bytes: int = 0  # of all processes

    @property
    def tokens_per_second(self) -> float:
        """Tokens of rows per second of training."""
        return self.counts.tokens / self.seconds

    @property
    def figures(self) -> dict[str, float]:
        """The final figures that experiment trackers log."""
        return {
            "steps": self.steps,
            "train_loss": self.train_loss,
            **{f"eval_{name}": value for name, value in self.held_out.items()},
            **asdict(self.counts),
            "tokens_per_second": self.tokens_per_second,
        }
