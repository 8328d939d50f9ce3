"""What stands behind the scores of a contestant: intervals, classes, calibration, and answers that could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Interval = tuple[float, float]  # the bounds of a 95 % interval


@dataclass(frozen=True)
class ClassScore:
    """How well one label is recognised: rows that expect it, rows that were given it, and the usual ratios of the two.

    A ratio without rows in its denominator is None: the precision of a label that was never given, for example.
    """

    label: str
    expected: int
    given: int
    right: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Bin:
    """The rows whose answers were about equally sure: their mean probability, and the share that is right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Whether a probability can be trusted: the expected calibration error, and the bins of the reliability diagram.

    `bins` leaves out those without rows.
    """

    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class ModelDetails:
    """What stands behind the scores of one contestant in one task.

    `ci95` belongs to the headline metric. `classes` is empty and `calibration` None where there are no labels or no
    probabilities. `scoring` says how labels were scored, and `scorings` has the scores by metric under each way to do so.
    """

    ci95: Interval
    classes: tuple[ClassScore, ...] = ()
    calibration: Calibration | None = None
    unparsable: int = 0
    abstained: int = 0
    scoring: str | None = None
    scorings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
