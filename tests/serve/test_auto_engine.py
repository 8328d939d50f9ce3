"""--engine auto: the faster engine, as measured once for a model on this machine."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune.machine import cache_folder
from finetune.recipe.options import Engine as EngineName
from finetune.serve import ServeTarget
from finetune.serve.engine.engine import Engine
from finetune.serve.runners.llama_runner import LlamaRunner
from finetune.serve.targets import open_engine

MEASURED, RECALLED = "measured just now", "when both were measured"


@pytest.fixture(autouse=True)
def no_measurements() -> None:
    """As on a machine where no engine has been measured."""
    shutil.rmtree(cache_folder() / "engines", ignore_errors=True)


@pytest.fixture
def target(two_adapters: Mapping[str, Path]) -> ServeTarget:
    return ServeTarget("health", two_adapters["health"])


@contextmanager
def opened(target: ServeTarget, engine: EngineName = "auto") -> Iterator[Engine]:
    served = open_engine([target], engine=engine)
    assert isinstance(served, Engine)
    try:
        yield served
    finally:
        served.close()
        served.join()


def kind_of(engine: Engine) -> EngineName:
    return "llama.cpp" if isinstance(engine._scheduler._runner, LlamaRunner) else "transformers"


def measurements() -> list[Path]:
    return list((cache_folder() / "engines").glob("*.json"))


def test_the_faster_engine_is_measured_once(target: ServeTarget, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with opened(target) as engine:
        (file,) = measurements()
        note = json.loads(file.read_text())
        seconds = note["seconds_per_token"]
        assert set(seconds) == {"llama.cpp", "transformers"}
        assert all(0 < each < 10 for each in seconds.values())
        assert note["engine"] == kind_of(engine) == min(seconds, key=lambda name: float(seconds[name]))
        assert MEASURED in caplog.text
    caplog.clear()
    with opened(target) as engine:
        assert kind_of(engine) == note["engine"]
        assert RECALLED in caplog.text
        assert MEASURED not in caplog.text


@pytest.mark.parametrize("winner", ["llama.cpp", "transformers"])
def test_the_next_start_keeps_to_the_measurement(target: ServeTarget, winner: str) -> None:
    with opened(target):
        (file,) = measurements()
    file.write_text(json.dumps({"engine": winner}))
    with opened(target) as engine:
        assert kind_of(engine) == winner


@pytest.mark.parametrize("text", ["", "[]", '{"engine": "vllm"}', '{"engine": null}'])
def test_a_damaged_note_is_measured_again(target: ServeTarget, text: str) -> None:
    with opened(target):
        (file,) = measurements()
    file.write_text(text)
    with opened(target) as engine:
        assert json.loads(file.read_text())["engine"] == kind_of(engine)


@pytest.mark.parametrize("name", ["llama.cpp", "transformers"])
def test_a_named_engine_is_not_measured(target: ServeTarget, name: EngineName) -> None:
    with opened(target, name) as engine:
        assert kind_of(engine) == name
    assert measurements() == []


def test_other_models_are_measured_on_their_own(target: ServeTarget, tiny_model: Path) -> None:
    with opened(target), opened(ServeTarget("tiny", tiny_model)):
        assert len(measurements()) == 2
