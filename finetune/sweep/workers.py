"""The trials of a sweep, one after the other in this process or side by side in worker processes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from finetune.errors import LostProcessError, StoppedError
from finetune.machine import free_memory
from finetune.sweep.request import SweepRequest, TrialRecord
from finetune.sweep.trial_run import Inputs, OnStep, run_trial
from finetune.sweep.trials import Trials
from finetune.train import Step
from finetune.train.interrupt import Interrupt
from finetune.train.ranks.group import Ranks
from finetune.workers import Done, Workers

OnTrial = Callable[[TrialRecord], None]
# The number of a trial in the file → its steps → why it was stopped, if it was
TrialWorkers = Workers[int, tuple[int, Step], str | None]
ALL_TRIED = "All of the settings have been tried."

log = logging.getLogger(__name__)


def run_in_turn(
    trials: Trials, folder: Path, request: SweepRequest, inputs: Inputs, on_step: OnStep, on_trial: OnTrial
) -> None:
    """Run trials until there are as many as asked for."""
    while len(trials.records()) < request.trials:
        trial = trials.next_trial()
        if trial is None:
            log.info(ALL_TRIED)
            return
        run_trial(trials, trial, folder, request, inputs, on_step)
        _report(trials.records()[-1], on_trial)


def run_side_by_side(
    trials: Trials, folder: Path, request: SweepRequest, inputs: Inputs, on_step: OnStep, on_trial: OnTrial
) -> None:
    """Run `request.workers` trials at a time, each in a process of its own, until there are as many as asked for.

    Raises:
        StoppedError: SIGINT or SIGTERM arrived; every trial that ran has a checkpoint.
        LostProcessError: a worker has ended.
        SlmtuneError: a trial raised an error that would end every trial.
    """
    work = _TrialByNumber(trials.file, folder, _share(request), inputs)
    interrupt, stopped = Interrupt(Ranks()), f"Stopped. Resume the sweep with: {request.resume_command}"
    try:
        with interrupt.listen(), TrialWorkers(request.workers, work) as workers:
            has_more = True
            while True:
                if interrupt.number is not None:
                    workers.terminate()
                    has_more = False
                while has_more and (idle := workers.idle) is not None and _wants_more(trials, workers, request):
                    has_more = _begin(trials, workers, idle)
                if not workers.busy:
                    break
                for event in workers.listen():
                    if not isinstance(event, Done):
                        on_step(*event.message)
                    elif event.result is None:
                        _report(trials.record_of(event.item), on_trial)
                    else:
                        stopped = event.result
    except LostProcessError as error:
        raise LostProcessError(
            f"{error}, possibly for lack of memory. Take fewer --workers, and go on with: {request.resume_command}"
        ) from None
    if interrupt.number is not None:
        raise StoppedError(interrupt.number, stopped)


def _share(request: SweepRequest) -> SweepRequest:
    """The request of a worker, with its share of the memory; a GPU is its own."""
    if torch.cuda.device_count():
        return request
    return replace(request, memory=(request.memory or free_memory()) // request.workers)


def _wants_more(trials: Trials, workers: TrialWorkers, request: SweepRequest) -> bool:
    """Whether to begin another trial now; a trial that has just ended counts twice until its worker has said so."""
    return len(trials.records()) + len(workers.busy) < request.trials


def _begin(trials: Trials, workers: TrialWorkers, idle: int) -> bool:
    """Begin another trial, and return whether there was one to begin."""
    trial = trials.next_trial(workers.busy.values())
    if trial is None:
        log.info(ALL_TRIED)
        return False
    workers.begin(idle, trial.number)
    return True


def _report(record: TrialRecord, on_trial: OnTrial) -> None:
    if record.problem is not None:
        log.warning("Trial %d failed: %s", record.number, record.problem)
    on_trial(record)


@dataclass(frozen=True)
class _TrialByNumber:
    """The work of a worker: a trial that is in the file, by its number."""

    file: Path
    folder: Path
    request: SweepRequest
    inputs: Inputs

    def __call__(self, number: int, say: Callable[[tuple[int, Step]], None]) -> str | None:
        """Run the trial, and return what is to be said if a signal stopped it."""
        trial = self._trials.trial(number)
        try:
            run_trial(self._trials, trial, self.folder, self.request, self.inputs, lambda *step: say(step))
        except StoppedError as error:
            return str(error)
        return None

    @cached_property
    def _trials(self) -> Trials:
        """The trials, with a connection of this process to their file."""
        recipe, maximize = self.inputs.plan.recipe, self.inputs.metric != "loss"
        return Trials(self.file, self.inputs.space, recipe.seed, maximize=maximize, side_by_side=True)
