"""Who takes part in an evaluation; contestants that share weights are loaded together, and only one such group at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from finetune.artifacts import Adapter
from finetune.evaluate.answers import Answers
from finetune.evaluate.contestants.baseline import BASELINES, ask_baseline
from finetune.evaluate.contestants.causal import ask_model
from finetune.evaluate.contestants.contestant import ADAPTER, BASE, Contestant, RowsCallback
from finetune.evaluate.contestants.encoder import ask_encoder, require_rows
from finetune.evaluate.request import EvalRequest
from finetune.models.heads import Head
from finetune.models.load import load_adapter
from finetune.recipe import AdapterRecipe
from finetune.scoring.tasks import EvalTask


@dataclass(frozen=True)
class Group:
    """Contestants that share weights.

    `members` are their names in order, each with its identity: whatever decides its answers apart from the rows and the
    options of the evaluation, such as the fingerprint of its weights. `open` loads the weights and frees them at the end.
    """

    members: Mapping[str, str]
    open: Callable[[], AbstractContextManager[list[Contestant]]]


def line_up(request: EvalRequest, adapter: Adapter, tasks: Sequence[EvalTask]) -> list[Group]:
    """The groups of contestants, the first with base and adapter; nothing is loaded yet.

    Raises:
        InputError: a contestant cannot answer the rows.
    """
    members = {BASE: str(adapter.manifest["parents"]["base_model"]["fingerprint"]), ADAPTER: adapter.fingerprint}
    head = Head.of_manifest(adapter.manifest)
    if head is not None:
        require_rows(head, tasks, request.split)
        return [Group(members, lambda: _open_encoder(request, adapter, tasks))]
    return [Group(members, lambda: _open_adapter(request, adapter))]


@contextlib.contextmanager
def _open_adapter(request: EvalRequest, adapter: Adapter) -> Iterator[list[Contestant]]:
    """A causal language model without and with the adapter."""
    loaded = load_adapter(adapter, request.model)

    def ask(task: EvalTask, on_rows: RowsCallback) -> Answers:
        return ask_model(
            loaded, task, batch_size=request.batch_size, max_new_tokens=request.max_new_tokens, on_rows=on_rows
        )

    def ask_base(task: EvalTask, on_rows: RowsCallback) -> Answers:
        with loaded.model.disable_adapter():
            return ask(task, on_rows)

    yield [Contestant(BASE, "base", ask_base), Contestant(ADAPTER, "adapter", ask)]


@contextlib.contextmanager
def _open_encoder(request: EvalRequest, adapter: Adapter, tasks: Sequence[EvalTask]) -> Iterator[list[Contestant]]:
    """An encoder with the adapter beside a baseline."""
    loaded = load_adapter(adapter, request.model)
    max_length = min(AdapterRecipe.model_validate(adapter.config).max_length, loaded.context)

    def ask(task: EvalTask, on_rows: RowsCallback) -> Answers:
        return ask_encoder(loaded, task, batch_size=request.batch_size, max_length=max_length, on_rows=on_rows)

    kind = BASELINES[tasks[0].metric]  # one head, one metric
    yield [Contestant(BASE, kind, lambda task, on_rows: ask_baseline(task)), Contestant(ADAPTER, "adapter", ask)]
