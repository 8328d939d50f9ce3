"""Adapters that come and go while the engine runs: loaded, replaced, unloaded, and read again when they are needed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from finetune.artifacts import Adapter
from finetune.errors import (
    ArtifactError,
    BaseModelError,
    CheckFailedError,
    InputError,
    MissingStageError,
    SlmtuneError,
    UnknownNameError,
)
from finetune.models.find import find_base
from finetune.models.load import load_adapter
from finetune.serve import ServeTarget
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams
from finetune.serve.runners.transformers_runner import TransformersRunner
from finetune.serve.targets import open_engine

from .conftest import Brake, make_adapter
from .test_transformers_runner import Driver, open_base

GREEDY = GenerationParams(max_tokens=12, temperature=0)
PROMPT = "profit rose"


@pytest.fixture
def adapters(tiny_model: Path, tmp_path: Path) -> dict[str, Path]:
    """Five adapters of the tiny model; a test may change them."""
    return {name: make_adapter(tmp_path / name, tiny_model, seed) for seed, name in enumerate("abcde")}


@pytest.fixture
def engine(adapters: dict[str, Path]) -> Iterator[Engine]:
    """Serves the first adapter."""
    engine = open_engine([ServeTarget("a", adapters["a"])])
    assert isinstance(engine, Engine)
    yield engine
    engine.close()
    engine.join()


def say(engine: Engine, model: str) -> str:
    return "".join(engine.generate(PROMPT, GREEDY, model))


def expected(folder: Path) -> str:
    """The greedy answer of an adapter by PEFT."""
    alone: Any = load_adapter(Adapter.open(folder))
    ids = alone.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    out = alone.model.generate(input_ids=ids, do_sample=False, max_new_tokens=12, eos_token_id=[2], pad_token_id=0)
    return str(alone.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def test_an_adapter_is_loaded_and_unloaded(engine: Engine, adapters: dict[str, Path]) -> None:
    engine.load_adapter("b", adapters["b"])
    assert say(engine, "b") == expected(adapters["b"])
    assert engine.served["b"].parent == engine.served["a"].parent
    engine.unload_adapter("b")
    with pytest.raises(UnknownNameError):
        say(engine, "b")
    assert say(engine, "a") == expected(adapters["a"])


def test_a_replaced_adapter_answers_running_requests_to_the_end(engine: Engine, adapters: dict[str, Path]) -> None:
    brake = Brake(engine.loaded)
    running = engine.generate(PROMPT, GREEDY, "a")
    assert brake.reached.wait(30)
    with ThreadPoolExecutor() as pool:
        replacing = pool.submit(engine.load_adapter, "a", adapters["b"])
        brake.released.set()
        assert "".join(running) == expected(adapters["a"])
        replacing.result(30)
    assert say(engine, "a") == expected(adapters["b"])


def test_an_adapter_in_use_is_unloaded_when_its_requests_have_ended(engine: Engine, adapters: dict[str, Path]) -> None:
    brake = Brake(engine.loaded)
    running = engine.generate(PROMPT, GREEDY, "a")
    assert brake.reached.wait(30)
    unloading = threading.Thread(target=engine.unload_adapter, args=["a"])
    unloading.start()
    brake.released.set()
    assert "".join(running) == expected(adapters["a"])
    unloading.join(30)
    assert "a" not in engine.served


def change(folder: Path, factor: float) -> None:
    """Multiply the second matrix of each layer and make the manifest fit."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({name: each * factor if "lora_B" in name else each for name, each in tensors.items()}, file)


def test_bad_adapters_are_refused_and_disturb_nobody(
    engine: Engine, adapters: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    damaged, missing = adapters["b"], tmp_path / "missing"
    change(damaged, 2)
    other_base = tmp_path / "other-base"
    shutil.copytree(tiny_model, other_base)
    weights = load_file(other_base / "model.safetensors")
    save_file({name: each + 0.01 for name, each in weights.items()}, other_base / "model.safetensors", {"format": "pt"})
    foreign = make_adapter(tmp_path / "foreign", other_base, 9)
    cases: list[tuple[Path, type[SlmtuneError], str]] = [
        (damaged, ArtifactError, "has changed"),
        (missing, MissingStageError, "missing"),
        (tmp_path, ArtifactError, "no manifest"),
        (foreign, BaseModelError, "was trained on"),
        (make_adapter(tmp_path / "plain", tiny_model, 3, quantization="none"), InputError, "precision"),
        (make_adapter(tmp_path / "said", tiny_model, 3, chat_template="{{ messages }}"), InputError, "template"),
    ]
    answer = expected(adapters["a"])
    with ThreadPoolExecutor() as pool:
        good = [pool.submit(say, engine, "a") for _ in range(8)]
        for _ in range(3):
            for folder, error, text in cases:
                with pytest.raises(error, match=text):
                    engine.load_adapter("bad", folder)
        assert {each.result(30) for each in good} == {answer}
    assert set(engine.served) == {"a", find_base(str(tiny_model)).name}


def test_an_adapter_without_effect_is_refused(adapters: dict[str, Path], tiny_model: Path) -> None:
    change(adapters["b"], 0)
    runner = TransformersRunner(open_base(tiny_model))
    with pytest.raises(CheckFailedError, match="not trained"):
        runner.load_adapter("b", adapters["b"])
    change(adapters["c"], 1e-30)
    with pytest.raises(CheckFailedError, match="computes the same"):
        runner.load_adapter("c", adapters["c"])
    runner.load_adapter("c", adapters["d"])  # the name is free


def test_the_base_model_keeps_its_name(engine: Engine, adapters: dict[str, Path], tiny_model: Path) -> None:
    base = find_base(str(tiny_model)).name
    with pytest.raises(InputError, match="base model"):
        engine.load_adapter(base, adapters["b"])
    with pytest.raises(InputError, match="base model"):
        engine.unload_adapter(base)
    with pytest.raises(UnknownNameError):
        engine.unload_adapter("nobody")


def test_adapters_beyond_the_limit_are_read_again_when_needed(adapters: dict[str, Path], tiny_model: Path) -> None:
    runner = TransformersRunner(open_base(tiny_model), adapters=2)
    for name, folder in adapters.items():
        runner.load_adapter(name, folder)
    prompt = [5, 6, 7, 8]
    first = {name: Driver(runner).run({name: prompt}) for name in adapters}
    assert len({tuple(answer[name]) for name, answer in first.items()}) == len(adapters)
    again = {name: Driver(runner).run({name: prompt}) for name in reversed(list(adapters))}
    assert again == first
    together = Driver(runner).run(dict.fromkeys(adapters, prompt))  # more in use than the limit
    assert together == {name: answer[name] for name, answer in first.items()}


def test_an_adapter_that_changed_on_disk_is_not_read_again(adapters: dict[str, Path], tiny_model: Path) -> None:
    runner = TransformersRunner(open_base(tiny_model), adapters=1)
    for name in ("a", "b"):
        runner.load_adapter(name, adapters[name])
    change(adapters["a"], 2)
    with pytest.raises(ArtifactError, match="changed since"):
        runner.open([1, 2], "a")
    runner.open([1, 2], "b")
