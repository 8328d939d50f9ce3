"""A server in this process with a tiny random model, and adapters that change its answers."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Adapter, writing
from finetune.models import load as models
from finetune.models.find import find_base
from finetune.models.load import LoadedModel
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.adapter import Quantization
from finetune.recipe.options import ServeOptions
from finetune.scoring.label_tasks import LabelTask, describe_label_tasks
from finetune.serve.api.address import bind, url_of
from finetune.serve.api.keys import ApiKey
from finetune.serve.api.listen import Server
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import ServedModel
from finetune.serve.engine.kinds import AnyEngine
from finetune.serve.runners.transformers_runner import TransformersRunner

KEY = "a-long-random-string"
ALICE = ApiKey("alice", KEY)


def make_adapter(
    folder: Path,
    base_folder: Path,
    seed: int,
    *,
    chat_template: str | None = None,
    quantization: Quantization = "nf4",
    std: float = 0.5,
    domain: str | None = None,
    label_tasks: Sequence[LabelTask] = (),
) -> Path:
    """An adapter artifact whose random matrices change every answer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = find_base(str(base_folder))
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    peft_model = get_peft_model(AutoModelForCausalLM.from_pretrained(base_folder), config)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=std)
    with writing(folder, Adapter, overwrite=False) as writer:
        peft_model.save_pretrained(str(writer.folder))
        tokenizer = load_tokenizer(base_folder, base)
        tokenizer.chat_template = chat_template or tokenizer.chat_template
        tokenizer.save_pretrained(writer.folder)
        settings = AdapterRecipe(model=str(base_folder), quantization=quantization)
        writer.manifest["config"] = settings.model_dump(mode="json") | {"model": base.name}
        writer.manifest["parents"] = {"base_model": base.describe()}
        if domain is not None:
            writer.manifest["parents"]["corpus"] = {"domain": domain}
        writer.manifest |= describe_label_tasks(label_tasks)
    return folder


@pytest.fixture(scope="session")
def two_adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of the tiny model, by the names that they are served under."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(folder / name, tiny_model, seed) for seed, name in enumerate(("health", "finance"))}


@pytest.fixture
def loaded(tiny_model: Path) -> LoadedModel:
    """The tiny model; a test may change it."""
    return load(tiny_model)


@pytest.fixture(scope="session")
def engine(tiny_model: Path) -> Iterator[Engine]:
    """An engine with the tiny model, named `tiny`; no test may change it."""
    engine = Engine(load(tiny_model), [ServedModel("tiny")])
    yield engine
    engine.close()
    engine.join()


def load(model: Path) -> LoadedModel:
    """A base model, not quantised."""
    return models.load(find_base(str(model)), AdapterRecipe(quantization="none"))


@pytest.fixture
def make_engine(loaded: LoadedModel) -> Iterator[Callable[..., Engine]]:
    """Builds engines with the tiny model, named `tiny`, and closes them; `slots` requests run at once."""
    engines: list[Engine] = []

    def make(queue_size: int = 4, slots: int = 1) -> Engine:
        runner = TransformersRunner(loaded, slots=slots)
        engines.append(Engine(loaded, [ServedModel("tiny")], runner=runner, queue_size=queue_size))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
        engine.join()


class Brake:
    """Stops a model before each step of an engine until released, and counts the steps."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.reached = threading.Event()
        self.released = threading.Event()
        self.steps = 0
        loaded.model.register_forward_pre_hook(self._step)

    def _step(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            return  # an engine that is being built tries its model
        self.steps += 1
        self.reached.set()
        assert self.released.wait(30)


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        """The error in the body, after checking its form."""
        assert self.headers["content-type"] == "application/json"
        assert set(self.data) == {"error"}
        error: dict[str, Any] = self.data["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        return error


@dataclass(frozen=True)
class Running:
    """A server in a thread."""

    server: Server
    url: str

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)

    def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        """One request; a body that is not bytes is sent as JSON."""
        connection = self.connect()
        defaults = {"Content-Type": "application/json"} if body is not None else {}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, data, defaults | (headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read().decode())
        finally:
            connection.close()


@contextmanager
def running(engine: AnyEngine, *keys: ApiKey, **settings: Any) -> Iterator[Running]:
    """Serve an engine from a thread of this process."""
    options = ServeOptions(**settings)
    ready = threading.Event()
    with bind("127.0.0.1", 0, local_only=True) as server_socket:
        server = Server(engine, options, keys, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [server_socket]})
        thread.start()
        assert ready.wait(30)
        try:
            yield Running(server, url_of(options, server_socket))
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def hello(**fields: object) -> dict[str, object]:
    """A small chat request."""
    return {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **fields}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(engine: Engine) -> Iterator[Running]:
    with running(engine, ALICE) as server:
        yield server
