"""The input and the results of `slmtune sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.artifacts import Corpus, Sweep
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import SweepOptions

Setting = bool | int | float | str | None


@dataclass(frozen=True)
class SweepRequest(SweepOptions):
    """What to train on, which settings are fixed, which are searched, and where to put the result."""

    corpus: Path | str
    output_dir: Path
    recipe: AdapterRecipe  # of which a trial changes the settings that are searched
    overwrite: bool = False
    resume: bool = False  # continue a sweep that was stopped, or add trials to a finished one
    resume_command: str = f"{Sweep.made_by} --resume"  # suggested when the sweep is stopped
    prepare_command: str = Corpus.made_by  # suggested when the corpus is missing
    memory: int | None = None  # bytes that training may use; None: what is free on the device
    keep_rows: bool = True  # the tokens, in the user's cache, for the next run


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A run of a sweep; `value` is that of the last evaluation if the run was pruned, None if it failed."""

    number: int
    state: str  # complete, pruned or failed
    value: float | None
    settings: Mapping[str, Setting]
    seconds: float | None
    loss: float | None = None  # on the validation split, which decides between equal values
    problem: str | None = None  # why it failed


@dataclass(frozen=True)
class SweepResult:
    """The trials of a sweep and the best of them."""

    sweep: Path
    metric: str  # loss, or the score of the recipe
    best: TrialRecord
    config: Path  # the best recipe, for `slmtune train --config`
    trials: tuple[TrialRecord, ...]
    seconds: float  # of all trials


@dataclass(frozen=True)
class SweepPlan:
    """The result of `--dry-run`: what would be searched, and the size of a run with the settings of the recipe."""

    model: str
    rows: int
    validation_rows: int
    trials: int
    metric: str
    steps: int
    search: Mapping[str, str]  # setting → its values in words
