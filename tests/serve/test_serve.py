"""Start and end of a server: targets that cannot be served, addresses that cannot be used, and signals."""

from __future__ import annotations

import json
import os
import signal
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from finetune.artifacts import Model, writing
from finetune.errors import (
    BaseModelError,
    InputError,
    MissingStageError,
    PortInUseError,
    UnknownNameError,
)
from finetune.recipe.options import ServeOptions
from finetune.serve import ServeTarget, serve
from finetune.serve.api.address import bind
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams
from finetune.serve.targets import open_engine

from .conftest import ALICE, make_adapter

NOTHING = Path("nothing-here")  # would fail if it were opened before the address is bound


def test_a_port_in_use_is_reported_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(PortInUseError, match="--port 0"):
        serve([ServeTarget("a", NOTHING)], ServeOptions(port=other.getsockname()[1]))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_key(host: str) -> None:
    with pytest.raises(InputError, match="--api-key-file"):
        serve([ServeTarget("a", NOTHING)], ServeOptions(host=host, port=0))


def test_with_a_key_any_address_will_do() -> None:
    with bind("0.0.0.0", 0, local_only=False) as server_socket:
        assert server_socket.getsockname()[1] > 0


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", 70000, "70000"),
        ("127.0.0.1", -1, "-1"),
        ("no.such.host.invalid", 0, "no.such.host.invalid"),
        ("192.0.2.1", 0, "192.0.2.1"),
    ],
)
def test_an_address_that_cannot_be_used_is_named(host: str, port: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        serve([ServeTarget("a", NOTHING)], ServeOptions(host=host, port=port), keys=[ALICE])


def test_missing_libraries_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"fastapi, llguidance, prometheus_client, uvicorn .*pip install 'slmtune\[serve\]'"
    ):
        serve([ServeTarget("a", NOTHING)], ServeOptions(port=0))


def test_nothing_to_serve_is_an_error() -> None:
    with pytest.raises(InputError, match="NAME=ADAPTER"):
        open_engine([])


@pytest.mark.parametrize("name", ["", "two words", "../up", "a\nb", "x" * 200])
def test_a_name_that_clients_could_not_request_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is not a valid model name"):
        open_engine([ServeTarget(name, NOTHING)])


def test_names_must_differ(two_adapters: dict[str, Path], tiny_model: Path) -> None:
    path = two_adapters["health"]
    with pytest.raises(InputError, match="Two models would be called 'a'"):
        open_engine([ServeTarget("a", path), ServeTarget("a", path)])
    with pytest.raises(InputError, match=f"Two models would be called '{tiny_model.name}'"):
        open_engine([ServeTarget(tiny_model.name, path)])


@pytest.mark.parametrize("path", [NOTHING, "./nothing", "/nothing/here", "runs/health/adapter"])
def test_a_missing_adapter_names_the_command_that_makes_one(path: Path | str) -> None:
    with pytest.raises(MissingStageError, match="slmtune train"):
        open_engine([ServeTarget("a", path)])


def test_an_unknown_base_model_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="smollm2-135m"):
        open_engine([ServeTarget("a", "smollm2-135")])


@pytest.fixture
def other_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model of the same shape with other weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.02)
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_one_server_has_one_base_model(
    two_adapters: dict[str, Path], other_model: Path, tiny_model: Path, tmp_path: Path
) -> None:
    foreign = make_adapter(tmp_path / "foreign", other_model, 5)
    unquantised = make_adapter(tmp_path / "unquantised", tiny_model, 5, quantization="none")
    health = ServeTarget("health", two_adapters["health"])
    for other in (foreign, unquantised, other_model):
        with pytest.raises(InputError, match="one base model"):
            open_engine([health, ServeTarget("other", other)])
    with pytest.raises(BaseModelError):
        open_engine([health], model=str(other_model))


def test_an_adapter_with_another_template_needs_its_own_server(
    two_adapters: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    changed = make_adapter(tmp_path / "changed", tiny_model, 5, chat_template="{{ messages[0].content }}")
    with pytest.raises(InputError, match="chat template"):
        open_engine([ServeTarget("health", two_adapters["health"]), ServeTarget("changed", changed)])


def test_the_base_is_served_under_its_target_name(two_adapters: dict[str, Path], tiny_model: Path) -> None:
    engine = open_engine([ServeTarget("health", two_adapters["health"]), ServeTarget("plain", tiny_model)])
    engine.close()
    assert {name: entry.parent for name, entry in engine.served.items()} == {"health": "plain", "plain": None}


@pytest.mark.parametrize("merged", [False, True], ids=["base", "merged"])
def test_a_model_without_adapters_is_served_under_its_name(tiny_model: Path, tmp_path: Path, merged: bool) -> None:
    path = tiny_model
    if merged:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = tmp_path / "model"
        with writing(path, Model, overwrite=False) as writer:
            AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(writer.folder)
            AutoTokenizer.from_pretrained(tiny_model).save_pretrained(writer.folder)
            writer.manifest["parents"] = {"base_model": {"name": "tiny-llama"}}
    engine = open_engine([ServeTarget("mine", path)])
    try:
        assert list(engine.served) == ["mine"]
        assert isinstance(engine, Engine)
        assert list(engine.generate("The bank", GenerationParams(max_tokens=3), "mine"))
    finally:
        engine.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_its_last_answer(tiny_model: Path, number: signal.Signals) -> None:
    addresses: list[str] = []

    def ask(url: str) -> bytes:
        """Send the signal, to this process, in the middle of an answer."""
        addresses.append(url.removeprefix("http://"))
        body = {"model": "tiny", "prompt": "The", "max_tokens": 20, "stream": True, "temperature": 0}
        with closing(HTTPConnection(addresses[0], timeout=30)) as connection:
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.readline().startswith(b"data: {")
            os.kill(os.getpid(), number)
            return response.read()

    before = signal.getsignal(number)
    with ThreadPoolExecutor() as pool:
        answers: list[Future[bytes]] = []
        ended = serve(
            [ServeTarget("tiny", tiny_model)],
            ServeOptions(port=0),
            on_ready=lambda url: answers.append(pool.submit(ask, url)),
        )
        assert answers[0].result(30).endswith(b"data: [DONE]\n\n")
    assert ended == number
    assert signal.getsignal(number) is before
    with pytest.raises(ConnectionRefusedError):
        HTTPConnection(addresses[0], timeout=5).connect()
