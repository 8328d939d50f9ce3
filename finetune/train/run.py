"""Corpus → Adapter: QLoRA (or LoRA) on a causal language model, written whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.artifacts import Adapter, ArtifactWriter, Corpus, ensure_replaceable, remove_leftovers, writing
from finetune.cards.model_card import model_card
from finetune.corpus.store import read_split
from finetune.errors import InputError, SlmtuneError
from finetune.machine import explain_full_disk, give_back, peak_bytes
from finetune.models.find import BaseModel, find_base
from finetune.models.load import load_base
from finetune.models.tokenizer import load_tokenizer
from finetune.plan.run import require_fit
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.train.batches.rows import Rows, render_rows
from finetune.train.checkpoints.checkpoint import Checkpoints, folder_of, list_checkpoints, step_of
from finetune.train.checkpoints.disk import THEN_RESUME
from finetune.train.checkpoints.lock import lock_folder
from finetune.train.checkpoints.resume import complete_lineage, find_finished, find_start, lineage_of, refuse_unfinished
from finetune.train.fit_memory import fit_memory
from finetune.train.progress import Outcome, Step
from finetune.train.request import TrainPlan, TrainRequest, TrainResult

log = logging.getLogger(__name__)


def train(request: TrainRequest, on_step: Callable[[Step], None] | None = None) -> TrainResult:
    """Train an adapter on a corpus's training split, or go on with a run that was ended before its time.

    Raises:
        InputError: nothing to train on, a row whose answer does not fit into `max_length`, too many rows that lose their
            end, no room in memory or on the disk, an unfinished run without `resume`, or another run than the one to resume.
        OutputInUseError: another process is training into the same folder.
        TrainingDivergedError: a loss or gradient is not finite; no adapter is written.
        StoppedError: SIGINT or SIGTERM came while training; a checkpoint is written.
        DiskFullError: the disk has become full; the last checkpoint is kept.
    """
    started = time.monotonic()
    out, folder = request.output_dir, folder_of(request.output_dir)
    if not request.resume:
        ensure_replaceable(out, overwrite=request.overwrite)
    given = _open(request)
    lineage = lineage_of(given.recipe, given.base, given.corpus)
    with lock_folder(folder, out), _report_kept_step(folder, request):
        remove_leftovers(Path(os.path.abspath(out)))
        if request.resume and not request.overwrite and (adapter := find_finished(out, lineage)):
            log.warning("The adapter at %s is complete already: nothing is left to train.", out)
            shutil.rmtree(folder)
            return TrainResult(out, **adapter.manifest["result"])
        if not request.resume and not request.overwrite:
            refuse_unfinished(folder, request.resume_command)
        with (
            writing(out, Adapter, overwrite=request.overwrite) as writer,
            explain_full_disk(folder.parent, THEN_RESUME),
        ):
            outcome = _fit(request, given, lineage, writer.folder, on_step)
            result = _result(out, outcome, time.monotonic() - started + outcome.seconds_before)
            _describe(writer, lineage, result)
        shutil.rmtree(folder)
    return result


def plan_training(request: TrainRequest) -> TrainPlan:
    """Resolve everything that `train` would use, and count rows, steps and tokens, without loading weights."""
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    given = _open(request)
    base, recipe = given.base, given.recipe
    rows = _render(recipe, load_tokenizer(base.folder, base), given.examples)
    try:
        refuse_truncated(rows, recipe)
    except InputError as error:
        log.warning("Training would refuse these rows: %s.", error)
    _, memory = fit_memory(recipe, base, rows, request.free_memory)
    return TrainPlan(
        recipe=recipe,
        model=base.name,
        rows=len(rows),
        steps=count_steps(len(rows), recipe),
        tokens_per_epoch=rows.tokens,
        supervised_tokens_per_epoch=rows.supervised_tokens,
        truncated=rows.truncated,
        longest=rows.longest,
        memory=memory,
    )


def count_steps(rows: int, recipe: AdapterRecipe) -> int:
    """Optimizer steps of a whole run."""
    batches = math.ceil(rows / recipe.per_device_train_batch_size)
    per_epoch = math.ceil(batches / recipe.gradient_accumulation_steps)
    return recipe.max_steps or math.ceil(per_epoch * recipe.num_train_epochs)


@dataclass(frozen=True)
class _Given:
    """What a request names, opened."""

    corpus: Corpus
    base: BaseModel
    recipe: AdapterRecipe  # complete
    examples: list[Example]


def _open(request: TrainRequest) -> _Given:
    corpus = Corpus.open(request.corpus, command=request.prepare_command)
    examples = read_split(corpus, "train")
    if not examples:
        raise InputError(f"The corpus at {request.corpus} has no training rows. Prepare it with more data")
    base = find_base(request.recipe.model, request.recipe.revision)
    return _Given(corpus, base, request.recipe.for_model(base.parameters), examples)


def _fit(
    request: TrainRequest,
    given: _Given,
    lineage: dict[str, Any],
    folder: Path,
    on_step: Callable[[Step], None] | None,
) -> Outcome:
    """Train, and write adapter and tokenizer into `folder`."""
    from finetune.train.fit import fit, save_adapter  # torch and TRL take seconds, and most errors come sooner

    base, recipe = given.base, given.recipe
    tokenizer = load_tokenizer(base.folder, base)
    rows = _render(recipe, tokenizer, given.examples)
    refuse_truncated(rows, recipe)
    held_out = render_rows(tokenizer, read_split(given.corpus, "validation"), recipe.max_length)
    whole = complete_lineage(lineage, rows.fingerprint)
    kept = folder_of(request.output_dir)
    checkpoints = Checkpoints(kept, recipe.save_total_limit, whole, request.resume_command)
    start = find_start(checkpoints, resume=request.resume)
    fitted, planned = fit_memory(recipe, base, rows, request.free_memory)
    if planned is not None:
        require_fit(planned)
        log.info("%s", planned.summary())
    fitted = start.restore_batch(fitted) if start else fitted
    checkpoints.record_batch(fitted)
    model = load_base(base.folder, recipe, unpack=False)
    give_back()
    outcome = fit(
        model=model,
        tokenizer=tokenizer,
        rows=rows,
        held_out=held_out,
        recipe=fitted,
        folder=folder,
        checkpoints=checkpoints,
        start=start,
        on_step=on_step,
    )
    save_adapter(outcome, base, folder)
    tokenizer.save_pretrained(folder)
    return outcome


def _render(recipe: AdapterRecipe, tokenizer: Any, examples: list[Example]) -> Rows:
    rows = render_rows(tokenizer, examples, recipe.max_length)
    if rows.truncated:
        log.warning(
            "%d of %d rows are longer than --max-length %d tokens and lose their end (the longest has %d).",
            rows.truncated,
            len(rows),
            recipe.max_length,
            rows.longest,
        )
    return rows


def refuse_truncated(rows: Rows, recipe: AdapterRecipe) -> None:
    """Refuse to train where more rows lose their end than the recipe bears.

    Raises:
        InputError: counts them, and says what to set.
    """
    if rows.truncated <= recipe.max_truncated * len(rows):
        return
    raise InputError(
        f"{rows.truncated} of {len(rows)} rows are longer than --max-length {recipe.max_length} tokens and would lose their "
        f"end, more than --max-truncated {recipe.max_truncated:.3g} allows; the longest has {rows.longest}. Raise --max-length "
        "to that, prepare the corpus with shorter rows, or allow more with --max-truncated 100%"
    )


@contextmanager
def _report_kept_step(folder: Path, request: TrainRequest) -> Iterator[None]:
    """Where a run ends otherwise than by what slmtune says itself, say what it left and how it goes on."""
    try:
        yield
    except SlmtuneError:
        raise
    except BaseException:
        if found := list_checkpoints(folder):
            log.warning("Step %d is kept in %s. Go on with: %s", step_of(found[0]), folder, request.resume_command)
        raise


def _result(adapter: Path, outcome: Outcome, seconds: float) -> TrainResult:
    return TrainResult(
        adapter=adapter,
        steps=outcome.steps,
        epochs=round(outcome.epochs, 4),
        train_loss=outcome.train_loss,
        eval_loss=outcome.eval_loss,
        **asdict(outcome.counts),
        tokens_per_second=outcome.tokens_per_second,
        peak_memory_bytes=peak_bytes(),
        truncated=outcome.truncated,
        seconds=seconds,
        resumed_from=outcome.resumed_from,
    )


def _describe(writer: ArtifactWriter, lineage: dict[str, Any], result: TrainResult) -> None:
    """Fill the manifest and write the model card."""
    shutil.rmtree(writer.folder / "trainer", ignore_errors=True)
    numbers = {key: value for key, value in asdict(result).items() if key != "adapter"}
    writer.manifest |= lineage
    writer.manifest["result"] = json.loads(json.dumps(numbers))
    (writer.folder / "README.md").write_text(model_card(Adapter(writer.folder, writer.manifest), None), "utf-8")
