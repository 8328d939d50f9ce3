"""The input and the result of `slmtune merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune.artifacts import Adapter


@dataclass(frozen=True)
class MergeRequest:
    """What to merge and where the model goes; a corpus supplies held-out prompts."""

    adapter: Path
    output_dir: Path
    corpus: Path | None = None
    model: str | None = None
    overwrite: bool = False
    train_command: str = Adapter.made_by


@dataclass(frozen=True)
class Distance:
    """How far two models are apart on the same rows: logits, KL in nats per token, share of equal greedy tokens.

    Of encoders: KL in nats per row and label (or end of an answer), and share of equal predictions.
    """

    max_abs_logit_diff: float
    mean_abs_logit_diff: float
    mean_kl: float
    greedy_agreement: float
    prompts: int


@dataclass(frozen=True)
class MergeResult:
    """The merged model and how it was verified; the top-level figures are those of `drift`."""

    model: Path
    onto: str
    is_encoder: bool
    verified: bool
    max_abs_logit_diff: float
    mean_kl: float
    greedy_agreement: float
    exact: Distance
    drift: Distance
    seconds: float
    peak_memory_bytes: int
