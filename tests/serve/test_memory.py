"""--max-memory: what requests keep stays inside it, and a server that would not fit does not start."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.errors import ContextLengthError, InputError
from finetune.models.load import LoadedModel
from finetune.recipe.options import ServeOptions
from finetune.serve import ServeTarget, serve
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams, ServedModel
from finetune.serve.runners import memory
from finetune.serve.runners.memory import memory_left, require_room
from finetune.serve.runners.runner import Extension
from finetune.serve.runners.transformers_runner import TransformersRunner
from finetune.serve.warm_up import warm_up

KIB, MIB = 2**10, 2**20
USED = 100 * MIB


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes 100 MiB."""
    monkeypatch.setattr(memory, "used_memory", lambda: USED)


def test_a_server_that_does_not_fit_does_not_start_and_says_how_much_it_takes(tiny_model: Path) -> None:
    with pytest.raises(InputError, match=r"not fit in 10 MiB: before the first request it takes .*--max-memory"):
        serve([ServeTarget("tiny", tiny_model)], ServeOptions(port=0), max_memory=10 * MIB)


@pytest.mark.usefixtures("used")
def test_what_is_left_is_the_limit_without_what_is_used() -> None:
    assert memory_left(USED + KIB) == KIB
    assert memory_left(USED - 1) == 0
    assert memory_left(None) > KIB


@pytest.mark.usefixtures("used")
def test_sequences_keep_inside_the_memory_that_is_left(loaded: LoadedModel) -> None:
    left = MIB
    runner = TransformersRunner(loaded, max_memory=USED + left)
    assert runner.room < TransformersRunner(loaded).room
    slots = [runner.open([5] * runner.context, None).slot for _ in range(max(1, runner.room // runner.context))]
    for _ in range(runner.context):
        runner.advance([Extension(slot, (5,)) for slot in slots])
    assert sum(runner._taken[slot].cache.bytes for slot in slots) < left
    for slot in slots:
        runner.close(slot)
    assert sum(kept.cache.bytes for kept in runner._prefixes._kept) < left / 4


@pytest.mark.usefixtures("used")
def test_a_conversation_for_which_there_is_no_memory_is_refused(loaded: LoadedModel) -> None:
    runner = TransformersRunner(loaded, max_memory=USED + 100 * KIB)
    engine = Engine(loaded, [ServedModel("tiny")], runner=runner)
    try:
        assert engine.context < TransformersRunner(loaded).context
        with pytest.raises(ContextLengthError):
            engine.submit([5] * engine.context, GenerationParams(), "tiny", lambda event: None)
        with pytest.raises(InputError, match=f"conversations of {engine.context} tokens"):
            require_room(engine.context, USED + 100 * KIB)
    finally:
        engine.close()
        engine.join()


def test_an_engine_computes_before_it_is_ready(loaded: LoadedModel) -> None:
    engine = Engine(loaded, [ServedModel("tiny")])
    passes: list[object] = []
    loaded.model.register_forward_pre_hook(lambda *_: passes.append(None))
    try:
        warm_up(engine)
    finally:
        engine.close()
        engine.join()
    assert passes
