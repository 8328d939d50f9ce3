"""Corpus → Adapter: QLoRA (or LoRA) on a causal language model, written whole or not at all."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.artifacts import Adapter, ArtifactWriter, Corpus, ensure_replaceable, writing
from finetune.base_model import BaseModel, find_base
from finetune.cards import model_card
from finetune.corpus import read_split
from finetune.errors import InputError
from finetune.memory import peak_bytes
from finetune.models import load_base, load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.train.rows import Rows, render_rows

if TYPE_CHECKING:
    from finetune.train.causal import Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainRequest:
    """What to train on, how, and where the adapter goes."""

    corpus: Path
    output_dir: Path
    recipe: AdapterRecipe
    overwrite: bool = False
    prepare_command: str = Corpus.made_by  # named when the corpus is missing


@dataclass(frozen=True)
class Step:
    """Progress after an optimizer step; loss in nats per supervised token, times in seconds."""

    step: int
    steps: int
    epoch: float
    loss: float
    tokens_per_second: float
    remaining: float


@dataclass(frozen=True)
class TrainResult:
    """What training did; losses in nats per supervised token, `tokens` without padding."""

    adapter: Path
    steps: int
    epochs: float
    train_loss: float
    eval_loss: float | None
    tokens: int
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


def train(request: TrainRequest, on_step: Callable[[Step], None] | None = None) -> TrainResult:
    """Train an adapter on a corpus's training split.

    Raises:
        InputError: nothing to train on, or a row whose answer does not fit into `max_length`.
        TrainingDivergedError: a loss or gradient is not finite; nothing is written.
    """
    started = time.monotonic()
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    corpus, base, examples = _open(request)
    recipe = request.recipe.for_model(base.parameters)
    with writing(request.output_dir, Adapter, overwrite=request.overwrite) as writer:
        from finetune.train import causal

        tokenizer = load_tokenizer(base.folder, base)
        rows = _render(recipe, tokenizer, examples)
        held_out = render_rows(tokenizer, read_split(corpus, "validation"), recipe.max_length)
        model = load_base(base.folder, recipe)
        outcome = causal.fit(model, tokenizer, rows, held_out, recipe, writer.folder, on_step)
        causal.save(outcome, base, writer.folder)
        tokenizer.save_pretrained(writer.folder)
        result = _result(request, outcome, rows, time.monotonic() - started)
        _describe(writer, recipe, base, corpus, result)
    return result


def plan_training(request: TrainRequest) -> TrainPlan:
    """Resolve everything that `train` would use, and count rows, steps and tokens, without loading weights."""
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    _, base, examples = _open(request)
    recipe = request.recipe.for_model(base.parameters)
    rows = _render(recipe, load_tokenizer(base.folder, base), examples)
    return TrainPlan(
        recipe=recipe,
        model=base.name,
        rows=len(rows.rendered),
        steps=count_steps(len(rows.rendered), recipe),
        tokens_per_epoch=rows.tokens,
        supervised_tokens_per_epoch=rows.supervised_tokens,
        truncated=rows.truncated,
        longest=rows.longest,
    )


def count_steps(rows: int, recipe: AdapterRecipe) -> int:
    """Optimizer steps of a whole run."""
    batches = math.ceil(rows / recipe.per_device_train_batch_size)
    per_epoch = math.ceil(batches / recipe.gradient_accumulation_steps)
    return recipe.max_steps or math.ceil(per_epoch * recipe.num_train_epochs)


def _open(request: TrainRequest) -> tuple[Corpus, BaseModel, list[Example]]:
    corpus = Corpus.open(request.corpus, command=request.prepare_command)
    examples = read_split(corpus, "train")
    if not examples:
        raise InputError(f"The corpus at {request.corpus} has no training rows. Prepare it with more data")
    return corpus, find_base(request.recipe.model, request.recipe.revision), examples


def _render(recipe: AdapterRecipe, tokenizer: Any, examples: list[Example]) -> Rows:
    rows = render_rows(tokenizer, examples, recipe.max_length)
    if rows.truncated:
        log.warning(
            "%d of %d rows are longer than --max-length %d tokens and lose their end (the longest has %d).",
            rows.truncated,
            len(rows.rendered),
            recipe.max_length,
            rows.longest,
        )
    return rows


def _result(request: TrainRequest, outcome: Outcome, rows: Rows, seconds: float) -> TrainResult:
    return TrainResult(
        adapter=request.output_dir,
        steps=outcome.steps,
        epochs=round(outcome.epochs, 4),
        train_loss=outcome.train_loss,
        eval_loss=outcome.eval_loss,
        tokens=outcome.tokens,
        supervised_tokens=outcome.supervised_tokens,
        tokens_per_second=outcome.tokens / outcome.seconds,
        peak_memory_bytes=peak_bytes(),
        truncated=rows.truncated,
        seconds=seconds,
    )


def _describe(
    writer: ArtifactWriter, recipe: AdapterRecipe, base: BaseModel, corpus: Corpus, result: TrainResult
) -> None:
    """Fill the manifest and write the model card."""
    shutil.rmtree(writer.folder / "trainer", ignore_errors=True)
    numbers = {key: value for key, value in asdict(result).items() if key != "adapter"}
    writer.manifest["config"] = recipe.model_dump(mode="json") | {"model": base.name}
    writer.manifest["parents"] = {
        "base_model": base.describe(),
        "corpus": {
            "fingerprint": corpus.fingerprint,
            "domain": corpus.manifest.get("domain"),
            "sources": corpus.manifest.get("sources", []),
            "counts": corpus.counts,
        },
    }
    writer.manifest["result"] = json.loads(json.dumps(numbers))
    (writer.folder / "README.md").write_text(model_card(Adapter(writer.folder, writer.manifest), None), "utf-8")
