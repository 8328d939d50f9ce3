"""The input and the result of `slmtune merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.artifacts import Adapter
from finetune.merge.held_out import ROWS
from finetune.merge.weights.replay import Replay
from finetune.recipe.options import MergeOptions

Onto = Literal["original", "dequantized"]


@dataclass(frozen=True)
class MergeRequest(MergeOptions):
    """What to merge and where the model goes; a corpus supplies held-out prompts, without which bundled ones are taken.

    Several adapters of one base model are merged as one, in which each has its weight, by default the same.
    """

    adapter: Path
    output_dir: Path
    corpus: Path | str | None = None
    model: str | None = None
    overwrite: bool = False
    dry_run: bool = False  # measure, and write nothing
    others: tuple[Path, ...] = ()  # further adapters
    weights: tuple[float, ...] = ()  # of all adapters
    train_command: str = Adapter.made_by
    rows: int = ROWS  # held-out rows that are compared
    traces: Path | None = None  # a folder that gets the traces of the rows: `adapter` and `model`


@dataclass(frozen=True)
class Distance:
    """How far two models are apart on the same rows: logits, KL in nats per token, share of greedy tokens alike.

    Greedy tokens count up to the first different one of each answer. The losses are those of the expected answers, in nats
    per token. Of encoders: KL and losses in nats per row and label (or end of an answer), and the share of equal predictions.
    """

    max_abs_logit_diff: float
    mean_abs_logit_diff: float
    mean_kl: float
    greedy_agreement: float
    prompts: int
    loss: float | None = None
    adapter_loss: float | None = None


@dataclass(frozen=True)
class Candidate:
    """The adapter merged onto one form of its base's weights, compared with the adapter over its base as trained."""

    onto: Onto
    distance: Distance
    score: float | None  # F1 on rows whose answers are picked
    replay: Replay
    max_kl: float

    @property
    def is_close(self) -> bool:
        """Whether the divergence is within its limit, which no figure that is not a number is."""
        return self.distance.mean_kl <= self.max_kl


@dataclass(frozen=True)
class MergeResult:
    """The merged model and how it was verified; the top-level figures are those of `drift`.

    `candidates` are the merges that were measured, of which the closest is kept.
    """

    model: Path
    written: bool  # False after a dry run
    onto: Onto
    is_encoder: bool
    verified: bool
    max_abs_logit_diff: float
    mean_kl: float
    greedy_agreement: float
    bundled_rows: int  # among those that were compared, as the corpus has too few
    drift: Distance
    adapter_score: float | None
    candidates: tuple[Candidate, ...]
    seconds: float
    peak_memory_bytes: int
