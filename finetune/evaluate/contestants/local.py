"""Contestants whose weights are loaded here: base and adapter, the base with examples, and rivals on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from finetune.artifacts import Adapter, Corpus, Model
from finetune.corpus.store import read_split
from finetune.evaluate.answers import Answers
from finetune.evaluate.contestants.baseline import BASELINES, ask_baseline
from finetune.evaluate.contestants.causal import ask_model, refuse_model
from finetune.evaluate.contestants.contestant import ADAPTER, BASE, FEW_SHOT, Contestant, Kind, RowsCallback
from finetune.evaluate.contestants.encoder import ask_encoder, refuse_encoder
from finetune.evaluate.contestants.few_shot import Budget, FewShotTask, add_examples
from finetune.evaluate.contestants.rivals import LocalRival
from finetune.evaluate.request import EvalRequest
from finetune.models.effect import require_effect
from finetune.models.load import LoadedModel, attach_adapter, load, load_adapter, load_merged
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.scoring.tasks import EvalTask


@dataclass(frozen=True)
class Side:
    """A causal language model and how to switch it to one contestant: with which of its adapters, or without any."""

    loaded: LoadedModel
    request: EvalRequest
    switch: Callable[[], AbstractContextManager[Any]] = nullcontext

    def ask(self, task: EvalTask, on_rows: RowsCallback) -> Answers:
        """The answers to a task."""
        size, tokens = self.request.batch_size, self.request.max_new_tokens
        with self.switch():
            return ask_model(self.loaded, task, batch_size=size, max_new_tokens=tokens, on_rows=on_rows)

    def refuse(self, task: EvalTask) -> str | None:
        """Why it cannot answer a task."""
        return refuse_model(self.loaded.tokenizer, task, self.loaded.context, self.request.max_new_tokens)


@contextlib.contextmanager
def open_adapter(
    request: EvalRequest, adapter: Adapter, corpus: Corpus | None, rivals: Sequence[LocalRival]
) -> Iterator[list[Contestant]]:
    """A causal language model without and with the adapter, with examples in its prompt, and with other adapters."""
    loaded = load_adapter(adapter, request.model)
    base, own = Side(loaded, request, loaded.model.disable_adapter), Side(loaded, request)
    contestants = [Contestant(BASE, "base", base.ask), Contestant(ADAPTER, "adapter", own.ask)]
    if request.few_shot:
        max_length = AdapterRecipe.model_validate(adapter.config).max_length
        contestants.append(_few_shot(base, corpus, max_length))
    for number, rival in enumerate(rivals):
        assert isinstance(rival.model, Adapter)
        side = _attach(own, rival.model, f"rival{number}")
        contestants.append(Contestant(rival.name, "rival", side.ask, side.refuse))
    yield contestants


@contextlib.contextmanager
def open_encoder(request: EvalRequest, adapter: Adapter, tasks: Sequence[EvalTask]) -> Iterator[list[Contestant]]:
    """An encoder with the adapter beside a baseline."""
    loaded = load_adapter(adapter, request.model)
    kind = BASELINES[tasks[0].metric]  # one head, one metric
    baseline = Contestant(BASE, kind, lambda task, on_rows: ask_baseline(task))
    yield [baseline, _encoder(ADAPTER, "adapter", loaded, adapter.config, request)]


@contextlib.contextmanager
def open_rival(request: EvalRequest, rival: LocalRival) -> Iterator[list[Contestant]]:
    """A rival with weights of its own."""
    model = rival.model
    if isinstance(model, Adapter):
        loaded, config = load_adapter(model), model.config
    elif isinstance(model, Model):
        loaded, config = load_merged(model), model.config["adapter_config"]
    else:
        loaded, config = load(model, AdapterRecipe(quantization="none")), {}
    if loaded.head is not None:
        yield [_encoder(rival.name, "rival", loaded, config, request)]
    else:
        side = Side(loaded, request)
        yield [Contestant(rival.name, "rival", side.ask, side.refuse)]


def shares_base(rival: LocalRival, adapter: Adapter) -> bool:
    """Whether a rival is an adapter of the same causal base model with the same quantisation and precision."""
    if not isinstance(rival.model, Adapter) or rival.head is not None:
        return False
    return _foundation(rival.model) == _foundation(adapter)


def _foundation(adapter: Adapter) -> tuple[object, ...]:
    base, recipe = adapter.manifest["parents"]["base_model"], AdapterRecipe.model_validate(adapter.config)
    return base["fingerprint"], base.get("config_fingerprint"), recipe.quantization, recipe.compute_dtype


def _attach(own: Side, adapter: Adapter, name: str) -> Side:
    """The side of another adapter on the same base model, with its own chat template."""
    loaded = own.loaded
    attach_adapter(loaded.model, adapter.path, name)
    require_effect(loaded.model, adapter.path, name)
    tokenizer = load_tokenizer(adapter.path, loaded.base)

    @contextlib.contextmanager
    def switch() -> Iterator[None]:
        loaded.model.set_adapter(name, inference_mode=True)
        try:
            yield
        finally:
            loaded.model.set_adapter("default", inference_mode=True)

    return Side(replace(loaded, tokenizer=tokenizer), own.request, switch)


def _few_shot(base: Side, corpus: Corpus | None, max_length: int) -> Contestant:
    """The base model with examples from the training split in its prompt, within the length of training rows."""
    request, training = base.request, read_split(corpus, "train") if corpus else []

    @cache
    def extend(task: EvalTask) -> FewShotTask:
        generated = task.metric not in ("weighted_f1", "preference_accuracy")
        budget = Budget(max_length, base.loaded.context, request.max_new_tokens if generated else 0)
        return add_examples(base.loaded.tokenizer, task, training, request.few_shot, budget)

    def ask(task: EvalTask, on_rows: RowsCallback) -> Answers:
        extended = extend(task)
        return replace(base.ask(extended.task, on_rows), shots=extended.shots)

    return Contestant(FEW_SHOT, "few_shot", ask, lambda task: extend(task).reason)


def _encoder(name: str, kind: Kind, loaded: LoadedModel, config: Mapping[str, Any], request: EvalRequest) -> Contestant:
    """An encoder with its head, which reads as many tokens as in training."""
    head, max_length = loaded.head, min(AdapterRecipe.model_validate(config).max_length, loaded.context)
    assert head is not None

    def ask(task: EvalTask, on_rows: RowsCallback) -> Answers:
        return ask_encoder(loaded, task, batch_size=request.batch_size, max_length=max_length, on_rows=on_rows)

    return Contestant(name, kind, ask, lambda task: refuse_encoder(head, task))
