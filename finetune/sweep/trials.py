"""The trials of a sweep in an SQLite file: Optuna suggests each one from those before it, and a killed sweep goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from finetune.sweep.request import Setting, TrialRecord
from finetune.sweep.space import Space

NAME = "sweep"
# Random settings before those that earlier trials suggest, and runs to the end before others are compared with them. Optuna's
# own numbers, 10 and 5, are for sweeps of a hundred trials.
RANDOM_TRIALS, WHOLE_TRIALS = 5, 4
FIRST_COMPARISON = 2  # of the five evaluations of a run; after the first, the learning rate has hardly fallen
ATTEMPTS = 20  # to find settings that were not tried before
FACTS, SECONDS, LOSS, PROBLEM, REPEATS = "facts", "seconds", "loss", "problem", "repeats"  # attributes in the file
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Trials:
    """The trials in an SQLite file, which is created if it does not exist.

    Args:
        seed: with it and the trials before, the settings of a trial are determined, however often the sweep was killed.
        maximize: whether larger values are better.
        side_by_side: whether trials run at the same time; each then keeps away from the settings of the others.
    """

    def __init__(self, file: Path, space: Space, seed: int, *, maximize: bool, side_by_side: bool = False) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.file, self.space, self.seed = file, space, seed
        self.maximize, self.side_by_side = maximize, side_by_side
        self.storage = optuna.storages.RDBStorage(f"sqlite:///{file.absolute()}")
        self.study = optuna.create_study(
            storage=self.storage,
            study_name=NAME,
            direction="maximize" if maximize else "minimize",
            pruner=optuna.pruners.MedianPruner(WHOLE_TRIALS, FIRST_COMPARISON),
            load_if_exists=True,
        )

    @property
    def facts(self) -> dict[str, Any] | None:
        """What the sweep was started with; None if it is new."""
        facts: dict[str, Any] | None = self.study.user_attrs.get(FACTS)
        return facts

    def begin(self, facts: Mapping[str, Any], first: Mapping[str, Setting] | None) -> None:
        """Record what the sweep is started with; its first trial has the settings `first`, if given."""
        if first is not None:
            self.study.enqueue_trial(dict(first))
        self.study.set_user_attr(FACTS, dict(facts))

    def next_trial(self, running: Collection[int] = ()) -> Trial | None:
        """A trial that a killed sweep left unfinished, or a new one; None if all settings seem to have been tried.

        Args:
            running: the numbers, in the file, of the trials that run now.
        """
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if frozen.number in running:
                continue
            if frozen.params.keys() == self.space.keys():
                return self.trial(frozen.number)
            self.study.tell(frozen.number, state=TrialState.FAIL)  # killed before it had its settings
        for _ in range(ATTEMPTS):
            earlier = self.study.get_trials(deepcopy=False)
            self.study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=RANDOM_TRIALS, seed=self.seed + len(earlier), constant_liar=self.side_by_side
            )
            trial = self.study.ask(dict(self.space))
            same = next((one for one in earlier if one.params == trial.params), None)
            if same is None:
                return trial
            trial.set_user_attr(REPEATS, same.number)
            self.study.tell(trial, state=TrialState.FAIL)
        return None

    def trial(self, number: int) -> Trial:
        """A trial by its number in the file, also in another process than the one that began it."""
        study = self.storage.get_study_id_from_name(NAME)
        return Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(study, number))

    def complete(self, trial: Trial, value: float, loss: float, seconds: float) -> None:
        """Record the value of a trial, and the loss that decides between equal values."""
        trial.set_user_attr(SECONDS, seconds)
        trial.set_user_attr(LOSS, loss)
        self.study.tell(trial, value)

    def prune(self, trial: Trial, seconds: float) -> None:
        """Record that a trial was stopped early."""
        trial.set_user_attr(SECONDS, seconds)
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, problem: str, seconds: float) -> None:
        """Record why a trial has no value."""
        trial.set_user_attr(SECONDS, seconds)
        trial.set_user_attr(PROBLEM, problem)
        self.study.tell(trial, state=TrialState.FAIL)

    def number_of(self, trial: Trial) -> int:
        """The number of a trial among those with settings of their own, in the order in which they began."""
        return sum(one.number < trial.number for one in self._own())

    def records(self) -> tuple[TrialRecord, ...]:
        """The finished trials, numbered as they began, without settings that were not tried a second time."""
        return tuple(
            TrialRecord(
                number=number,
                state=STATES[trial.state],
                value=trial.value,  # of its last evaluation if it was stopped early
                settings={name: trial.params[name] for name in self.space},
                seconds=trial.user_attrs.get(SECONDS),
                loss=trial.user_attrs.get(LOSS),
                problem=trial.user_attrs.get(PROBLEM),
            )
            for number, trial in enumerate(self._own())
            if trial.state in STATES
        )

    def record_of(self, number: int) -> TrialRecord:
        """The record of a finished trial by its number in the file."""
        own = [trial.number for trial in self._own()]
        return next(record for record in self.records() if own[record.number] == number)

    def _own(self) -> list[FrozenTrial]:
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.params.keys() == self.space.keys() and REPEATS not in trial.user_attrs
        ]

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the best value, of equal ones that with the lowest loss; None if none is complete."""
        complete = [record for record in self.records() if record.state == "complete"]
        sign = -1 if self.maximize else 1
        return min(complete, key=lambda record: (sign * (record.value or 0.0), record.loss or 0.0), default=None)
