"""The trials of a sweep, one after the other in this process or side by side in worker processes."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from finetune.errors import InputError, SlmtuneError, StoppedError
from finetune.launcher import GPUS
from finetune.machine import count_cores, end_with_parent, free_memory
from finetune.sweep.request import SweepRequest, TrialRecord
from finetune.sweep.trial_run import Inputs, OnStep, run_trial
from finetune.sweep.trials import Trials
from finetune.train import Step
from finetune.train.interrupt import Interrupt
from finetune.train.ranks.group import Ranks

OnTrial = Callable[[TrialRecord], None]
PAUSE = 0.1  # seconds between two looks at the workers
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


def require_workers(workers: int) -> None:
    """Refuse more workers than there are GPUs, or without GPUs cores.

    Raises:
        InputError: with the number that there is.
    """
    gpus, cores = _list_gpus(), count_cores()
    available, what = (len(gpus), "GPUs") if gpus else (cores, "cores")
    if workers > max(available, 1):
        raise InputError(f"--workers {workers} are more than the {available} {what} here. Take at most {available}")


def run_side_by_side(
    trials: Trials, folder: Path, request: SweepRequest, inputs: Inputs, on_step: OnStep, on_trial: OnTrial
) -> None:
    """Run `request.workers` trials at a time, each in a process of its own, until there are as many as asked for.

    Raises:
        StoppedError: SIGINT or SIGTERM arrived; every trial that ran has a checkpoint.
        SlmtuneError: a worker died, or a trial raised an error that would end every trial.
    """
    # A fork of this process would leave locks of the libraries' threads held; one of a server that imported them does not.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    job = _Job(trials.file, folder, _share(request), inputs, _list_gpus(), context.SimpleQueue(), context.SimpleQueue())
    for slot in range(request.workers):
        job.slots.put(slot)
    interrupt, processes = Interrupt(Ranks()), set[int]()
    pool = ProcessPoolExecutor(request.workers, context, initializer=_start, initargs=(job,))
    running: dict[Future[None], int] = {}
    told, has_more = False, True
    stopped: StoppedError | None = None
    try:
        with interrupt.listen():
            while running or (has_more and interrupt.number is None):
                while has_more and interrupt.number is None and len(running) < request.workers:
                    has_more = _begin(trials, pool, request, running)
                done, _ = wait(running, PAUSE, FIRST_COMPLETED)
                _read(job.messages, processes, on_step)
                if interrupt.number is not None and not told:
                    told = True
                    _terminate(processes)
                stopped = _collect(trials, done, running, on_trial) or stopped
    except BrokenProcessPool:
        raise SlmtuneError(
            "A worker of the sweep died, possibly for lack of memory. Take fewer --workers, and go on with: "
            f"{request.resume_command}"
        ) from None
    finally:
        if running:
            _terminate(processes)
        pool.shutdown(wait=True, cancel_futures=True)
    if interrupt.number is not None:
        message = str(stopped) if stopped is not None else f"Stopped. Resume the sweep with: {request.resume_command}"
        raise StoppedError(interrupt.number, message)


def _share(request: SweepRequest) -> SweepRequest:
    """The request of a worker, with its share of the memory; a GPU is its own."""
    if _list_gpus():
        return request
    return replace(request, memory=(request.memory or free_memory()) // request.workers)


def _collect(
    trials: Trials, done: Collection[Future[None]], running: dict[Future[None], int], on_trial: OnTrial
) -> StoppedError | None:
    """Report the trials that have ended; return the error of one that a signal stopped."""
    stopped = None
    for future in done:
        number = running.pop(future)
        try:
            future.result()
        except StoppedError as error:
            stopped = error
        else:
            _report(trials.record_of(number), on_trial)
    return stopped


def _report(record: TrialRecord, on_trial: OnTrial) -> None:
    if record.problem is not None:
        log.warning("Trial %d failed: %s", record.number, record.problem)
    on_trial(record)


@dataclass(frozen=True)
class _Job:
    """What every worker needs."""

    file: Path
    folder: Path
    request: SweepRequest
    inputs: Inputs
    gpus: list[str]
    messages: SimpleQueue[int | tuple[int, Step]] = field(repr=False)  # the id of a process, or a step of a trial
    slots: SimpleQueue[int] = field(repr=False)  # the numbers of workers that have not started


def _begin(trials: Trials, pool: ProcessPoolExecutor, request: SweepRequest, running: dict[Future[None], int]) -> bool:
    """Begin another trial, and return whether there was one to begin."""
    if len(trials.records()) + len(running) >= request.trials:
        return False
    trial = trials.next_trial(running.values())
    if trial is None:
        log.info(ALL_TRIED)
        return False
    running[pool.submit(_run, trial.number)] = trial.number
    return True


def _read(messages: SimpleQueue[int | tuple[int, Step]], processes: set[int], on_step: OnStep) -> None:
    while not messages.empty():
        message = messages.get()
        if isinstance(message, int):
            processes.add(message)
        else:
            on_step(*message)


def _terminate(processes: set[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def _list_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA names them."""
    if not torch.cuda.is_available():
        return []
    named = os.environ.get(GPUS)
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


_worker: list[tuple[_Job, Trials]] = []  # of this process


def _start(job: _Job) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)  # the parent reports; libraries would print the same lines per worker
    for stream in (1, 2):
        os.dup2(silence, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sends SIGTERM
    threading.Thread(target=end_with_parent, daemon=True).start()
    slot, workers = job.slots.get(), job.request.workers
    if job.gpus:
        os.environ[GPUS] = job.gpus[slot]
    torch.set_num_threads(max(1, count_cores() // workers))
    recipe = job.inputs.plan.recipe
    trials = Trials(job.file, job.inputs.space, recipe.seed, maximize=job.inputs.metric != "loss", side_by_side=True)
    _worker.append((job, trials))
    job.messages.put(os.getpid())


def _run(number: int) -> None:
    """Run the trial with a number in the file."""
    [(job, trials)] = _worker
    trial = trials.trial(number)
    run_trial(trials, trial, job.folder, job.request, job.inputs, lambda own, step: job.messages.put((own, step)))
