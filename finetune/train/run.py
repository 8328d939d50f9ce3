"""Corpus → Adapter: QLoRA (or LoRA) on a causal language model or an encoder, written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune.artifacts import Adapter, ArtifactWriter, ensure_replaceable, remove_leftovers, writing
from finetune.cards.model_card import model_card
from finetune.errors import InputError, LostProcessError, PrunedError, SlmtuneError
from finetune.hub.settings import importing_trainer
from finetune.lock import lock_folder
from finetune.machine import explain_full_disk, keep_freed_memory, peak_bytes, release_memory, return_freed_memory
from finetune.models.load import load_base
from finetune.models.tokenizer import load_tokenizer, save_tokenizer
from finetune.plan.run import require_fit
from finetune.train.checkpoints.checkpoint import Checkpoints, folder_of, list_checkpoints, step_of
from finetune.train.checkpoints.disk import THEN_RESUME
from finetune.train.checkpoints.resume import complete_lineage, find_finished, refuse_unfinished
from finetune.train.fit_memory import fit_memory
from finetune.train.inputs import Inputs, make_validation, open_inputs, refuse_truncated, render_split
from finetune.train.model_checks import check_model
from finetune.train.out_of_memory import explain_full_memory
from finetune.train.progress import Outcome, Step
from finetune.train.ranks.agree import require_same, share_start
from finetune.train.ranks.group import Ranks
from finetune.train.ranks.machine import require_processes
from finetune.train.ranks.start import launched, started
from finetune.train.request import TrainPlan, TrainRequest, TrainResult
from finetune.train.trained_rows import remember_training
from finetune.train.validation import (
    plan_metric,
    scored_rows,
)

log = logging.getLogger(__name__)


def train(
    request: TrainRequest,
    on_step: Callable[[Step], None] | None = None,
    on_line: Sequence[Callable[[dict[str, float]], None]] = (),
) -> TrainResult:
    """Train an adapter on the training split of a corpus, or resume a run that was stopped.

    Other processes of the training are spawned: a script that asks for them must call this below `if __name__ ==
    "__main__":`. In processes that a launcher (torchrun or accelerate launch) has started, call it in each.

    Args:
        on_step: called after each optimizer step.
        on_line: each is called with each new line of `training.jsonl`.

    Raises:
        InputError: there are no training rows, the answer of a row lies beyond `max_length`, too many rows would be
            truncated, memory or disk space is too small, an unfinished run exists and `resume` is false, the run to
            resume had other inputs, or there are more processes than cores or GPUs.
        OutputInUseError: another process is writing to the same folder.
        TrainingDivergedError: a loss or gradient is not finite; no adapter is written.
        StoppedError: SIGINT or SIGTERM arrived during training; a checkpoint is written.
        DiskFullError: the disk is full; the last checkpoint is kept.
        MemoryFullError: memory is full, even with one row per forward pass; the last checkpoint is kept.
        LostProcessError: another process of the training has ended; the last checkpoint is kept.
    """
    with launched(request) as ranks:
        if ranks is not None and not ranks.is_first:
            return _follow(request, ranks)
        return _lead(request, ranks, on_step, on_line)


def _lead(
    request: TrainRequest,
    ranks: Ranks | None,
    on_step: Callable[[Step], None] | None,
    on_line: Sequence[Callable[[dict[str, float]], None]],
) -> TrainResult:
    """Train, and write the adapter; `ranks` are the processes if a launcher has started them."""
    beginning = time.monotonic()
    out, folder = request.output_dir, folder_of(request.output_dir)
    if not request.resume:
        ensure_replaceable(out, overwrite=request.overwrite)
    inputs = open_inputs(request)
    require_processes(inputs.recipe, request.num_processes or 1, ranks)
    lineage = inputs.lineage()
    with lock_folder(folder, out), _report_last_checkpoint(folder, request):
        remove_leftovers(Path(os.path.abspath(out)))
        if request.resume and not request.overwrite and (adapter := find_finished(out, lineage)):
            log.warning("The adapter at %s is already complete: there is nothing left to train.", out)
            shutil.rmtree(folder)
            result = TrainResult(out, **adapter.manifest["result"])
            return ranks.from_first(result) if ranks else result
        if not request.resume and not request.overwrite:
            refuse_unfinished(folder, request.resume_command)
        with (
            started(request, _follow, ranks) as processes,
            writing(out, Adapter, overwrite=request.overwrite) as writer,
            explain_full_disk(folder.parent, THEN_RESUME),
            explain_full_memory(folder, request.resume_command),
        ):
            processes.from_first(None)
            outcome = _fit(request, inputs, lineage, writer.folder, processes, on_step, on_line)
            result = _result(out, inputs, outcome, time.monotonic() - beginning + outcome.seconds_before)
            _describe(writer, lineage, result)
        remember_training(out, inputs)
        shutil.rmtree(folder)
    return result


def plan_training(request: TrainRequest) -> TrainPlan:
    """Resolve the configuration of `train` and count rows, steps and tokens, without loading weights."""
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    inputs = open_inputs(request)
    require_processes(inputs.recipe, request.num_processes or 1)
    base, recipe = inputs.base, inputs.recipe
    tokenizer = load_tokenizer(base.folder, base)
    rows = render_split(inputs, tokenizer, "train")
    check_model(base, recipe, rows, inputs.head)
    try:
        refuse_truncated(rows, recipe)
    except InputError as error:
        log.warning("Training would not start: %s.", error)
    _, memory = fit_memory(recipe, base, rows, len(tokenizer), request.memory, request.num_processes or 1)
    mixture = inputs.mixture
    # of each row: a pair of answers has two lengths
    lengths, supervised = (each.reshape(len(rows), -1).sum(1) for each in (rows.lengths, rows.supervised))
    if mixture is not None:
        first = mixture.rows_of(0)
        lengths, supervised = lengths[first], supervised[first]
    return TrainPlan(
        recipe=recipe,
        model=base.name,
        rows=len(mixture or rows),
        steps=recipe.count_steps(len(mixture or rows)),
        tokens_per_epoch=int(lengths.sum()),
        supervised_tokens_per_epoch=int(supervised.sum()),
        truncated=rows.truncated,
        longest=rows.longest,
        memory=memory,
        metric=plan_metric(recipe, inputs.corpus, inputs.head),
        mixture=mixture.counts if mixture else {},
    )


def _follow(request: TrainRequest, ranks: Ranks) -> TrainResult:
    """Take part in the training of another process, which writes the adapter."""
    beginning = time.monotonic()
    if finished := ranks.from_first(None):
        return finished
    inputs = open_inputs(request)
    with (
        TemporaryDirectory(prefix="slmtune-") as folder,
        explain_full_memory(folder_of(request.output_dir), request.resume_command),
    ):
        outcome = _fit(request, inputs, inputs.lineage(), Path(folder), ranks, None, ())
    return _result(request.output_dir, inputs, outcome, time.monotonic() - beginning + outcome.seconds_before)


def _fit(
    request: TrainRequest,
    inputs: Inputs,
    lineage: dict[str, Any],
    folder: Path,
    ranks: Ranks,
    on_step: Callable[[Step], None] | None,
    on_line: Sequence[Callable[[dict[str, float]], None]],
) -> Outcome:
    """Train; the first process writes the adapter and the tokenizer to `folder`."""
    with importing_trainer():
        from transformers import set_seed

        from finetune.train.fit import fit, save_adapter  # here: importing TRL takes a second; most errors come sooner

    base, recipe = inputs.base, inputs.recipe
    tokenizer = load_tokenizer(base.folder, base)
    rows = render_split(inputs, tokenizer, "train")
    check_model(base, recipe, rows, inputs.head)
    refuse_truncated(rows, recipe)
    held_out = render_split(inputs, tokenizer, "validation")
    scored = scored_rows(recipe, inputs.corpus, inputs.head)
    whole = complete_lineage(lineage, rows.fingerprint, ranks.size)
    require_same(ranks, whole)
    checkpoint_folder = folder_of(request.output_dir)
    checkpoints = Checkpoints(checkpoint_folder, recipe.save_total_limit, whole, request.resume_command)
    start = share_start(ranks, checkpoints, resume=request.resume)
    divided = start.restore_batch(recipe) if start else recipe
    fitted, planned = fit_memory(divided, base, rows, len(tokenizer), request.memory, ranks.size)
    fitted = min(ranks.gather(fitted), key=lambda each: each.per_device_train_batch_size)
    if planned is not None:
        require_fit(planned)
        log.info("%s", planned.summary())
    checkpoints.record_batch(fitted)
    set_seed(recipe.seed)  # a new head is drawn from it
    return_freed_memory()
    model = load_base(base.folder, recipe, head=inputs.head, unpack=False)
    release_memory()
    keep_freed_memory()
    outcome = fit(
        model=model,
        tokenizer=tokenizer,
        rows=rows,
        held_out=held_out,
        recipe=fitted,
        head=inputs.head,
        folder=folder,
        tracker_dir=request.tracker_dir or checkpoints.folder.parent,
        checkpoints=checkpoints,
        start=start,
        validation=make_validation(inputs, model, tokenizer, scored),
        mixture=inputs.mixture,
        ranks=ranks,
        on_step=on_step,
        on_line=on_line,
    )
    if ranks.is_first:
        save_adapter(outcome, base, folder)
        save_tokenizer(tokenizer, folder, is_encoder=inputs.head is not None)
    return replace(outcome, peak_memory_bytes=sum(ranks.gather(peak_bytes())))


@contextmanager
def _report_last_checkpoint(folder: Path, request: TrainRequest) -> Iterator[None]:
    """If a run ends with an error that slmtune did not raise, report its last checkpoint and how to resume."""
    try:
        yield
    except LostProcessError as error:
        next_step = _last_checkpoint(folder, request) or "There is no checkpoint yet: start again"
        raise LostProcessError(f"{error}. {next_step}") from None
    except (SlmtuneError, PrunedError):
        raise
    except BaseException:
        if hint := _last_checkpoint(folder, request):
            log.warning("%s", hint)
        raise


def _last_checkpoint(folder: Path, request: TrainRequest) -> str | None:
    if paths := list_checkpoints(folder):
        return f"The last checkpoint is step {step_of(paths[0])} in {folder}. Resume with: {request.resume_command}"
    return None


def _result(adapter: Path, inputs: Inputs, outcome: Outcome, seconds: float) -> TrainResult:
    return TrainResult(
        adapter=adapter,
        steps=outcome.steps,
        epochs=round(outcome.epochs, 4),
        train_loss=outcome.train_loss,
        eval_loss=outcome.held_out.get("loss"),
        eval_figures={name: value for name, value in outcome.held_out.items() if name != "loss"},
        **asdict(outcome.counts),
        tokens_per_second=outcome.tokens_per_second,
        peak_memory_bytes=outcome.peak_memory_bytes,
        truncated=outcome.truncated,
        held_out_truncated=outcome.held_out_truncated,
        seconds=seconds,
        resumed_from=outcome.resumed_from,
        precision=outcome.precision,
        planned_steps=outcome.planned_steps,
        adapter_step=outcome.adapter_step,
        metric=outcome.metric,
        mixture=inputs.mixture.counts if inputs.mixture else {},
    )


def _describe(writer: ArtifactWriter, lineage: dict[str, Any], result: TrainResult) -> None:
    """Fill the manifest and write the model card."""
    shutil.rmtree(writer.folder / "trainer", ignore_errors=True)
    numbers = {key: value for key, value in asdict(result).items() if key != "adapter"}
    writer.manifest |= lineage
    writer.manifest["result"] = json.loads(json.dumps(numbers))
    (writer.folder / "README.md").write_text(model_card(Adapter(writer.folder, writer.manifest), None), "utf-8")
