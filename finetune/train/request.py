"""What `slmtune train` is asked for and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune.artifacts import Corpus
from finetune.plan.run import Plan
from finetune.recipe import AdapterRecipe
from finetune.train.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class TrainRequest:
    """What to train on, how, and where the adapter goes."""

    corpus: Path
    output_dir: Path
    recipe: AdapterRecipe
    overwrite: bool = False
    resume: bool = False  # go on from the newest checkpoint, or start where there is none
    resume_command: str = Checkpoint.made_by  # named when the run ends before its time
    prepare_command: str = Corpus.made_by  # named when the corpus is missing
    free_memory: int | None = None  # bytes that training may take; not given: what is free


@dataclass(frozen=True)
class TrainResult:
    """What training did; losses in nats per supervised token, `tokens` without padding."""

    adapter: Path
    steps: int
    epochs: float
    train_loss: float
    eval_loss: float | None
    tokens: int
    computed_tokens: int  # fewer than `tokens` where rows share their beginning
    supervised_tokens: int
    tokens_per_second: float
    peak_memory_bytes: int
    truncated: int
    seconds: float
    resumed_from: str | None = None


@dataclass(frozen=True)
class TrainPlan:
    """What `--dry-run` tells: the resolved configuration and what it comes to, without training."""

    recipe: AdapterRecipe
    model: str
    rows: int
    steps: int
    tokens_per_epoch: int
    supervised_tokens_per_epoch: int
    truncated: int
    longest: int
    memory: Plan | None  # None where the model's family is not known to `plan`
