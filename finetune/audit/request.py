"""The input and the result of `slmtune audit`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune.artifacts import Adapter, Corpus
from finetune.audit.bounds import Interval, Separation
from finetune.recipe.options import AuditOptions

Verdict = Literal["no evidence of leakage", "leak found", "inconclusive"]


@dataclass(frozen=True)
class AuditRequest(AuditOptions):
    """Which adapter to audit, on which rows, and where to put the report.

    `canary_key` may be left out if the key lies where `prepare` puts it. `held_out` is a corpus whose rows are the controls,
    instead of the held-out splits of `corpus`.
    """

    adapter: Path
    corpus: Path | str
    output_dir: Path
    canary_key: Path | None = None
    held_out: Path | str | None = None
    model: str | None = None
    overwrite: bool = False
    train_command: str = Adapter.made_by  # suggested if the adapter is missing
    prepare_command: str = Corpus.made_by


@dataclass(frozen=True)
class Extraction:
    """How many answers were continued, and how many continuations repeat the answer, word for word or nearly.

    Args:
        rows: answers that are long enough.
        verbatim: continuations that equal the rest of the answer.
        near: continuations with a token edit similarity of at least 0.9 to it, the verbatim ones included.
        base_verbatim: verbatim continuations of the base model.
    """

    rows: int
    verbatim: int
    near: int
    base_verbatim: int


@dataclass(frozen=True)
class Samples:
    """Texts that the adapter wrote without any question, and what is in them of the training rows.

    Args:
        texts: number of texts.
        copied: texts with 13 consecutive words of exactly one training row and of no held-out one.
        base_copied: the same of the base model's texts.
        identifiers: what looks like personal data in the samples and continuations, by kind.
        from_training: how many of these stand in a training row, and not in what the adapter had read.
    """

    texts: int
    copied: int
    base_copied: int
    identifiers: Mapping[str, int] = field(default_factory=dict)
    from_training: int = 0


@dataclass(frozen=True)
class CanaryGroup:
    """The canaries with one number of repetitions.

    Args:
        repetitions: how often each planted canary was in the training rows.
        planted: planted canaries that count.
        held_out: canaries that were never planted.
        extracted: planted canaries whose secret the adapter wrote when it was asked for it.
        held_out_extracted: the same of held-out canaries.
        auc: how well the gain in likelihood tells both apart.
        auc_ci95: its interval.
        epsilon: lower bound with 95 % confidence on the ε of differential privacy, for as many equal rows.
        p_value: of the right guesses if nothing leaked.
    """

    repetitions: int
    planted: int
    held_out: int
    extracted: int
    held_out_extracted: int
    auc: float
    auc_ci95: Interval
    epsilon: float
    p_value: float


@dataclass(frozen=True)
class Canaries:
    """What became of the canaries; those cut off by the maximum length do not count."""

    drawn: int
    cut_off: int
    delta: float
    groups: tuple[CanaryGroup, ...]


@dataclass(frozen=True)
class Leak:
    """A text that leaked, for readers who asked for texts: where it is from, and the text that the adapter wrote."""

    kind: Literal["continuation", "sample", "canary"]
    row: str
    text: str


@dataclass(frozen=True)
class AuditResult:
    """The report of an audit.

    Args:
        report: the page.
        verdict: what was found; `reasons` say why, in sentences.
        separations: by score, the headline first.
        base_separation: the base model's own likelihood, which must tell members and controls apart no better than chance.
        extraction: of training rows.
        control_extraction: of held-out rows.
        leaks: their texts, with `--show-text`.
    """

    report: Path
    verdict: Verdict
    reasons: tuple[str, ...]
    separations: Mapping[str, Separation]
    base_separation: Separation | None
    extraction: Extraction
    control_extraction: Extraction
    samples: Samples
    canaries: Canaries | None
    leaks: tuple[Leak, ...]
    seconds: float
    peak_memory_bytes: int
