"""The input and the results of `slmtune train`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetune.artifacts import Corpus
from finetune.plan.run import Plan
from finetune.recipe import AdapterRecipe
from finetune.train.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class TrainRequest:
    """What to train on, how to train, and where to put the adapter."""

    corpus: Path | str
    output_dir: Path
    recipe: AdapterRecipe
    overwrite: bool = False
    resume: bool = False  # continue from the newest checkpoint, or start if there is none
    resume_command: str = Checkpoint.made_by  # suggested when the run is stopped
    prepare_command: str = Corpus.made_by  # suggested when the corpus is missing
    replay_corpus: Path | str | None = None  # the general rows for `replay`, instead of the bundled ones
    memory: int | None = None  # bytes that training may use; None: what is free on the device
    tracker_dir: Path | None = None  # where trackers write files; None: next to the adapter
    num_processes: int | None = (
        None  # that share the rows of each step; None: one, or those that a launcher has started
    )
    keep_rows: bool = True  # the tokens, in the user's cache, for the next run


@dataclass(frozen=True)
class TrainResult:
    """The figures of a run; losses in nats per supervised token or pair of answers, `tokens` without padding."""

    adapter: Path
    steps: int
    epochs: float
    train_loss: float
    eval_loss: float | None
    tokens: int
    computed_tokens: int  # fewer than `tokens` if rows share a prefix
    supervised_tokens: int
    tokens_per_second: float
    peak_memory_bytes: int  # of all processes
    truncated: int  # training rows
    held_out_truncated: int
    seconds: float
    resumed_from: str | None = None
    precision: str | None = None  # of matrix products: what `compute_dtype` came to
    pairs: int = 0  # of answers, in preference tuning
    eval_figures: Mapping[str, float] = field(default_factory=dict)  # of the adapter, held out, beside the loss
    planned_steps: int | None = None  # more than `steps` if the run stopped early
    adapter_step: int | None = None  # the step whose weights the adapter has
    metric: str | None = None  # decided which step that is; None: nothing was evaluated
    mixture: Mapping[str, int] = field(default_factory=dict)  # rows per epoch by source; empty: the corpus as it is

    @property
    def stopped_early(self) -> bool:
        """Whether the run ended before its last planned step, because the evaluations no longer got better."""
        return self.planned_steps is not None and self.steps < self.planned_steps


@dataclass(frozen=True)
class TrainPlan:
    """The result of `--dry-run`: the complete configuration and the size of the run, without training."""

    recipe: AdapterRecipe
    model: str
    rows: int
    steps: int
    tokens_per_epoch: int
    supervised_tokens_per_epoch: int
    truncated: int
    longest: int
    memory: Plan | None  # None if `plan` does not know the model's family
    metric: str | None  # by which the best step is chosen; None: nothing is evaluated
    mixture: Mapping[str, int] = field(default_factory=dict)  # rows per epoch by source; empty: the corpus as it is
