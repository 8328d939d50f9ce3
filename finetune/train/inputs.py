"""The inputs of a run, opened and checked before anything heavy is loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from finetune.artifacts import Corpus
from finetune.corpus.open import open_corpus
from finetune.corpus.store import iter_split
from finetune.errors import InputError
from finetune.models.config import context_of, read_config
from finetune.models.find import BaseModel, find_base
from finetune.models.heads import Head
from finetune.models.kind import find_kind
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Split
from finetune.scoring.label_tasks import describe_label_tasks, read_label_tasks
from finetune.trackers.tracked_run import require_tracker
from finetune.train.batches.labelled import LabelledRows, encode_rows
from finetune.train.batches.mixture import Mixture
from finetune.train.batches.rows import Rows, TokenRows, render_rows
from finetune.train.checkpoints.resume import lineage_of
from finetune.train.init_adapter import adopt_adapter
from finetune.train.kept_rows import describe_tokenizer, keep_facts, keep_rows
from finetune.train.method_checks import check_method, require_pairs
from finetune.train.replay import Replayed, mix_rows, read_replayed
from finetune.train.request import TrainRequest
from finetune.train.task import AskedTask, find_head, task_of
from finetune.train.validation import (
    EncoderValidation,
    LabelValidation,
    Validation,
    count_scored,
    require_validation,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of a request."""

    corpus: Corpus
    base: BaseModel
    recipe: AdapterRecipe  # with a value for every setting
    head: Head | None  # of an encoder
    init_adapter: Mapping[str, str] | None  # name and fingerprint
    replayed: Replayed | None
    mixture: Mixture | None
    keep_rows: bool

    def read_rows(self, split: Split) -> Iterable[Example]:
        """The rows of a split; those for training are followed by those that may be replayed."""
        replayed = self.replayed.rows if self.replayed and split == "train" else ()
        return chain(iter_split(self.corpus, split), replayed)

    def lineage(self) -> dict[str, Any]:
        """The inputs as recorded in manifests."""
        lineage = lineage_of(self.recipe, self.base, self.corpus, self.head, self.init_adapter)
        if self.mixture is not None:
            lineage["mixture"] = self.mixture.counts
        if self.replayed is not None:
            lineage["parents"]["replay"] = self.replayed.describe()
        if self.head is None and "classification" in self.corpus.manifest.get("by_task", {}):
            lineage |= self._label_tasks()
        return lineage

    def _label_tasks(self) -> dict[str, Any]:
        sources = list(self.corpus.manifest.get("sources", ()))
        found: dict[str, Any] = keep_facts(
            self.corpus,
            {"label tasks": sources},
            lambda: describe_label_tasks(read_label_tasks(iter_split(self.corpus, "train"), sources)),
            may_keep=self.keep_rows,
        )
        return found


def open_inputs(request: TrainRequest) -> Inputs:
    """Open the inputs of a request, with a value for every setting of the recipe.

    Raises:
        InputError: there are no training rows, or the model, the rows and the settings do not fit each other.
    """
    require_tracker(request.recipe.report_to)
    corpus = open_corpus(request.corpus, command=request.prepare_command)
    if not corpus.counts["train"]:
        raise InputError(f"The corpus at {request.corpus} has no training rows. Prepare it again with more data")
    check_method(corpus, request.recipe)
    base = find_base(request.recipe.model, request.recipe.revision)
    is_dpo = request.recipe.method == "dpo"
    head = _find_head(base, "generation" if is_dpo else request.recipe.task, corpus, may_keep=request.keep_rows)
    require_validation(request.recipe, corpus, head)
    recipe = request.recipe.for_model(base.parameters, context_of(read_config(base.folder)))
    held_out = corpus.counts.get("validation", 0)
    replayed = read_replayed(request, head)
    mixture = mix_rows(recipe, corpus, replayed)
    rows = len(mixture) if mixture else corpus.counts["train"]
    recipe = recipe.for_corpus(rows, held_out, count_scored(recipe, corpus, head))
    recipe, init_adapter = adopt_adapter(recipe, base, head)
    recipe = recipe.model_copy(update={"task": task_of(head)})
    return Inputs(corpus, base, recipe, head, init_adapter, replayed, mixture, request.keep_rows)


def _find_head(base: BaseModel, asked: AskedTask, corpus: Corpus, *, may_keep: bool) -> Head | None:
    """`find_head`, which reads all rows for an encoder."""
    if find_kind(base.folder) == "causal":
        return find_head(base.folder, asked, corpus)

    def find() -> dict[str, Any]:
        head = find_head(base.folder, asked, corpus)
        return {"head": head.describe()} if head else {}

    return Head.of_manifest(keep_facts(corpus, {"head": asked}, find, may_keep=may_keep))


def make_validation(inputs: Inputs, model: Any, tokenizer: Any, examples: Sequence[Example]) -> Validation | None:
    """What evaluations measure besides the loss; None if that is nothing."""
    base, head = inputs.base, inputs.head
    validation: Validation | None = None
    if examples and head is None:
        validation = LabelValidation(model, tokenizer, base, examples)
    elif examples and head is not None:
        validation = EncoderValidation(model, tokenizer, base, head, examples, inputs.recipe.max_length)
    return validation


def render_split(inputs: Inputs, tokenizer: Any, split: Split) -> Rows:
    """The rows of a split, and those that are replayed beside those for training; rendered, or as an earlier run did it."""
    recipe, head = inputs.recipe, inputs.head

    def read() -> Iterable[Example]:
        examples = inputs.read_rows(split)
        return require_pairs(examples) if recipe.method == "dpo" else examples

    parts: dict[str, object] = {
        "split": split,
        "replayed": inputs.replayed.fingerprint if inputs.replayed and split == "train" else None,
        "tokenizer": describe_tokenizer(inputs.base.folder, tokenizer),
        "method": recipe.method,
        "max_length": recipe.max_length,
        "head": head.describe() if head else None,
    }
    corpus, may_keep = inputs.corpus, inputs.keep_rows
    rows: Rows
    if head is None:

        def render() -> TokenRows:
            return render_rows(tokenizer, read(), recipe.max_length)

        rows = keep_rows(corpus, parts, TokenRows, render, may_keep=may_keep)
    else:

        def encode() -> LabelledRows:
            return encode_rows(tokenizer, read(), head, recipe.max_length)

        rows = keep_rows(corpus, parts, LabelledRows, encode, may_keep=may_keep)
    if rows.truncated:
        log.warning(
            "%d of %d rows of the %s split are longer than --max-length %d tokens and are truncated (the longest has %d).",
            rows.truncated,
            len(rows),
            split,
            recipe.max_length,
            rows.longest,
        )
    return rows


def refuse_truncated(rows: Rows, recipe: AdapterRecipe) -> None:
    """Refuse to train if more rows would be truncated than the recipe allows.

    Raises:
        InputError: gives their number and the settings to change.
    """
    if rows.truncated <= recipe.max_truncated * len(rows):
        return
    raise InputError(
        f"{rows.truncated} of {len(rows)} rows are longer than --max-length {recipe.max_length} tokens and would be "
        f"truncated, more than --max-truncated {recipe.max_truncated:.3g} allows; the longest has {rows.longest}. Raise "
        "--max-length to that length, prepare the corpus with shorter rows, or allow more with --max-truncated 100%"
    )
