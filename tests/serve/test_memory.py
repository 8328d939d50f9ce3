"""--max-memory: what requests keep stays inside it, and a server that would not fit does not start."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import AdapterMemoryError, ContextLengthError, InputError
from finetune.models.find import find_base
from finetune.models.load import LoadedModel
from finetune.models.tensor_file import list_tensors
from finetune.recipe.options import Engine as EngineName
from finetune.recipe.options import ServeOptions
from finetune.serve import ApiKey, ServeTarget, llama_engine, serve, text_engine
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams, ServedModel
from finetune.serve.runners import memory
from finetune.serve.runners.memory import memory_left, require_room
from finetune.serve.runners.resident import WEIGHTS, ResidentAdapters
from finetune.serve.runners.runner import Extension
from finetune.serve.runners.transformers_runner import TransformersRunner
from finetune.serve.targets import open_engine
from finetune.serve.warm_up import warm_up

from .conftest import ALICE, hello, make_adapter, running

KIB, MIB = 2**10, 2**20
USED, LEFT = 100 * MIB, 64 * MIB
ADMIN = ApiKey("root", "key-of-the-administrator", is_admin=True)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that takes 100 MiB."""
    monkeypatch.setattr(memory, "used_memory", lambda: USED)


def test_a_server_that_does_not_fit_does_not_start_and_says_how_much_it_takes(tiny_model: Path) -> None:
    with pytest.raises(
        InputError, match=r"not fit in 10 MiB: the weights of the model take at least \d+ KiB.*--max-memory"
    ):
        serve([ServeTarget("tiny", tiny_model)], ServeOptions(port=0), max_memory=10 * MIB)
    with pytest.raises(InputError, match="before the first request it takes"):
        require_room(None, 10 * MIB)


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("engine", ["transformers", "llama.cpp"])
def test_weights_are_not_loaded_if_their_files_say_that_they_do_not_fit(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, engine: EngineName
) -> None:
    weights = find_base(str(tiny_model)).parameters * {"transformers": 4, "llama.cpp": 2}[engine]
    targets = [ServeTarget("tiny", tiny_model)]
    opened = open_engine(targets, engine=engine, max_memory=USED + weights)
    opened.close()
    opened.join()
    monkeypatch.setattr(text_engine, "load", None)
    monkeypatch.setattr(llama_engine, "LlamaRunner", None)
    with pytest.raises(InputError, match="weights of the model take at least"):
        open_engine(targets, engine=engine, max_memory=USED + weights - 1)


@pytest.fixture
def adapters(tiny_model: Path, tmp_path: Path) -> list[Path]:
    return [make_adapter(tmp_path / str(number), tiny_model, number, quantization="none") for number in range(2)]


@pytest.fixture
def size(adapters: list[Path]) -> int:
    """The bytes of an adapter in memory."""
    return sum(math.prod(tensor.form.shape) for tensor in list_tensors(adapters[0] / WEIGHTS).values()) * 4


@pytest.fixture
def open_with_room(
    used: None, tiny_model: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[EngineName, float], Engine]]:
    """Serves the tiny model with room for a number of adapters."""
    opened: list[Engine] = []

    def open_one(engine: EngineName, count: float) -> Engine:
        monkeypatch.setattr(memory, "ADAPTER_SHARE", count * size / LEFT)
        one = open_engine([ServeTarget("tiny", tiny_model)], engine=engine, max_memory=USED + LEFT)
        assert isinstance(one, Engine)
        opened.append(one)
        return one

    yield open_one
    for engine in opened:
        engine.close()
        engine.join()


@pytest.mark.parametrize("name", ["transformers", "llama.cpp"])
def test_of_adapters_that_are_loaded_later_the_ones_used_least_recently_make_way(
    open_with_room: Callable[[EngineName, float], Engine], adapters: list[Path], name: EngineName
) -> None:
    engine = open_with_room(name, 1.5)
    runner: Any = engine._scheduler._runner
    for folder in adapters:
        engine.load_adapter(folder.name, folder)
        assert len(runner._resident._resident) == 1
    greedy = GenerationParams(max_tokens=4, temperature=0)
    answers = ["".join(engine.generate("profit", greedy, model)) for model in ("0", "1", "0")]
    assert answers[0] == answers[2] != answers[1]


def test_an_adapter_that_does_not_fit_is_refused_with_the_figures(
    open_with_room: Callable[[EngineName, float], Engine], adapters: list[Path]
) -> None:
    with running(open_with_room("transformers", 0.5), ALICE, ADMIN, adapter_dir=adapters[0].parent) as server:
        key = {"Authorization": f"Bearer {ADMIN.value}"}
        answer = server.ask("POST", "/v1/load_lora_adapter", {"lora_name": "0"}, key)
        assert (answer.status, answer.error["code"], answer.error["param"]) == (409, "adapter_memory", "lora_name")
        assert re.search(
            r"takes 0\.\d MiB, but --max-memory leaves 0\.\d MiB .* Raise --max-memory", answer.error["message"]
        )
        alice = {"Authorization": f"Bearer {ALICE.value}"}
        assert server.ask("POST", "/v1/chat/completions", hello(), alice).status == 200


def test_adapters_in_use_do_not_make_way(adapters: list[Path], size: int) -> None:
    kept: dict[str, Path] = {}
    resident = ResidentAdapters(16, kept.__setitem__, kept.__delitem__, room=int(1.5 * size))
    resident.add("0", adapters[0], ())
    with pytest.raises(AdapterMemoryError, match=r"of which those in use take 0\.\d MiB\. Try again when"):
        resident.add("1", adapters[1], {"0"})
    assert list(kept) == ["0"]
    resident.add("1", adapters[1], ())
    with pytest.raises(AdapterMemoryError):
        resident.use("0", {"1"})
    assert list(kept) == ["1"]
    resident.use("0", ())
    assert list(kept) == ["0"]


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
