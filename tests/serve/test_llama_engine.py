"""--engine llama.cpp: the same answers at the same routes, and auto where llama.cpp cannot compute."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, Corpus, Export, writing
from finetune.corpus.store import read_split
from finetune.errors import InputError
from finetune.machine import cache_folder
from finetune.models import llama_library
from finetune.models.chat_template import render_prompt
from finetune.models.find import find_base
from finetune.models.gguf.families import read_shape
from finetune.models.gguf.writer import write_model
from finetune.models.llama_library import open_library
from finetune.models.load import LoadedModel, load_adapter
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Message
from finetune.serve import ServeTarget, llama_engine
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import Event, GenerationParams, Piece, Result
from finetune.serve.gguf_file import find_gguf
from finetune.serve.runners.llama_runner import LlamaRunner
from finetune.serve.runners.runner import Extension
from finetune.serve.targets import open_engine
from finetune.train import TrainRequest, train

from .conftest import hello, make_adapter, running

MAX_KL = 0.001  # nats per token; weights, keys and values have 16 bits in one, and 32 in the other


@pytest.fixture(scope="module")
def targets(two_adapters: Mapping[str, Path]) -> list[ServeTarget]:
    return [ServeTarget(name, folder) for name, folder in two_adapters.items()]


@pytest.fixture(scope="module")
def llama(targets: list[ServeTarget]) -> Iterator[Engine]:
    engine = open_engine(targets, engine="llama.cpp")
    assert isinstance(engine, Engine)
    assert isinstance(engine._scheduler._runner, LlamaRunner)
    yield engine
    engine.close()
    engine.join()


def test_requests_at_once_are_answered_as_one_after_the_other(llama: Engine) -> None:
    # One token each: the numbers of a random model are so close that rounding decides about later ones.
    bodies = [
        hello(model=name, max_tokens=1, temperature=0, messages=[{"role": "user", "content": f"Did {word} rise?"}])
        for name in llama.served
        for word in ("profit", "the company", "costs")
    ]
    with running(llama) as server, ThreadPoolExecutor(len(bodies)) as pool:

        def ask(body: dict[str, object]) -> str:
            answer = server.ask("POST", "/v1/chat/completions", body)
            assert answer.status == 200, answer.text
            return str(answer.data["choices"][0]["message"]["content"])

        one_by_one = [ask(body) for body in bodies]
        for _ in range(2):
            assert list(pool.map(ask, bodies)) == one_by_one
    assert len(set(one_by_one)) > 1


@pytest.fixture(scope="module")
def trained(
    tiny_adapter: Path, tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """The base model and two adapters of it that have learnt their answers, so that rounding does not decide about them."""
    recipe = AdapterRecipe(
        model=str(tiny_model), learning_rate=1e-2, num_train_epochs=6, seed=7, lora_r=4, lora_alpha=8, eval_steps=0
    )
    other = tmp_path_factory.mktemp("adapters") / "other"
    train(TrainRequest(tiny_corpus, other, recipe))
    targets = [ServeTarget("one", tiny_adapter), ServeTarget("other", other)]
    engine = open_engine(targets, engine="llama.cpp")
    assert isinstance(engine, Engine)
    yield engine
    engine.close()
    engine.join()


def test_answers_of_each_adapter_in_a_batch_are_token_for_token_those_of_one_request_at_a_time(
    trained: Engine, tiny_corpus: Path
) -> None:
    rows = read_split(Corpus.open(tiny_corpus), "test")
    rows = [*[row for row in rows if row.choices][:3], *[row for row in rows if not row.choices][:3]]
    greedy = GenerationParams(max_tokens=16, temperature=0, logprobs=0)
    asked = [(trained.encode_chat(row.prompt), name) for row in rows for name in ("one", "other")]

    def collect(events: SimpleQueue[Event]) -> tuple[list[int], Event]:
        ids: list[int] = []
        while isinstance(event := events.get(timeout=30), Piece):
            ids += [token.id for token in event.tokens]
        return ids, event

    def ask(count: int) -> list[tuple[list[int], Event]]:
        answers = []
        for start in range(0, len(asked), count):
            queues: list[SimpleQueue[Event]] = []
            for ids, name in asked[start : start + count]:
                queues.append(SimpleQueue())
                trained.submit(ids, greedy, name, queues[-1].put)
            answers += [collect(queue) for queue in queues]
        return answers

    def tokens(answers: list[tuple[list[int], Event]]) -> list[tuple[list[int], int, str]]:
        return [(ids, end.completion_tokens, end.finish_reason) for ids, end in answers if isinstance(end, Result)]

    one_by_one = tokens(ask(1))
    assert len(one_by_one) == len(asked)
    assert len({tuple(ids) for ids, _, _ in one_by_one}) > 2
    for count in (2, 5, len(asked)):
        assert tokens(ask(count)) == one_by_one


def test_an_adapter_computes_what_it_computes_over_the_weights_it_was_trained_on(
    two_adapters: Mapping[str, Path], tiny_model: Path
) -> None:
    adapter = Adapter.open(two_adapters["health"])
    recipe = AdapterRecipe.model_validate(adapter.config)
    assert recipe.is_quantized
    loaded, base = load_adapter(adapter), find_base(str(tiny_model))
    runner = LlamaRunner(llama_engine.convert_weights(base, read_shape(tiny_model), recipe), read_shape(tiny_model))
    runner.load_adapter("health", adapter.path)
    ids = render_prompt(loaded.tokenizer, [Message("user", "Did profit rise, and what is the outlook?")])
    with torch.inference_mode():
        expected = loaded.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    slot = runner.open(ids, "health").slot
    given = torch.cat([runner.advance([Extension(slot, (token,))]) for token in ids]).log_softmax(-1)
    assert (expected.exp() * (expected - given)).sum(-1).mean() < MAX_KL


def test_an_adapter_is_loaded_and_unloaded_while_the_server_runs(
    targets: list[ServeTarget], tiny_model: Path, tmp_path: Path
) -> None:
    engine = open_engine(targets, engine="llama.cpp")
    assert isinstance(engine, Engine)
    greedy = GenerationParams(max_tokens=4, temperature=0)
    before = "".join(engine.generate("profit", greedy, "health"))
    engine.load_adapter("law", make_adapter(tmp_path / "law", tiny_model, 5))
    assert "".join(engine.generate("profit", greedy, "law")) != before
    engine.unload_adapter("law")
    assert "".join(engine.generate("profit", greedy, "health")) == before
    engine.close()
    engine.join()


def test_the_base_model_is_converted_once(llama: Engine, targets: list[ServeTarget]) -> None:
    before = {file: file.stat().st_mtime_ns for file in (cache_folder() / "gguf").iterdir()}
    engine = open_engine(targets[:1], engine="llama.cpp")
    engine.close()
    assert {file: file.stat().st_mtime_ns for file in (cache_folder() / "gguf").iterdir()} == before


def test_a_base_model_alone(tiny_model: Path) -> None:
    engine = open_engine([ServeTarget("tiny", tiny_model)], engine="llama.cpp")
    assert isinstance(engine, Engine)
    assert isinstance(engine._scheduler._runner, LlamaRunner)
    assert engine.context == 512
    with running(engine) as server:
        assert server.ask("POST", "/v1/chat/completions", hello()).status == 200
    engine.close()
    engine.join()


@pytest.fixture(scope="module")
def gguf_file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny-f32.gguf"
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    write_model(tiny_model, read_shape(tiny_model), tokenizer, file, precision="f32", name="tiny")
    return file


def test_a_gguf_file_is_served_with_its_own_tokenizer_and_template(gguf_file: Path, loaded: LoadedModel) -> None:
    engine = open_engine([ServeTarget("file", gguf_file)])
    assert isinstance(engine, Engine)
    messages = [Message("system", "Answer."), Message("user", "Did profit rise?")]
    ids = engine.encode_chat(messages)
    assert ids == render_prompt(loaded.tokenizer, messages)
    with torch.inference_mode():
        expected = int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    generation = engine.generate(messages, GenerationParams(max_tokens=1, temperature=0), "file")
    assert "".join(generation) == loaded.tokenizer.decode([expected])
    engine.close()
    engine.join()


def test_an_export_to_gguf_is_served(gguf_file: Path, tmp_path: Path) -> None:
    with writing(tmp_path / "export", Export, overwrite=False) as writer:
        shutil.copy(gguf_file, writer.folder / "model-f32.gguf")
        writer.manifest["config"] = {"format": "gguf"}
        writer.manifest["parents"] = {}
    assert find_gguf(tmp_path / "export") == tmp_path / "export" / "model-f32.gguf"
    with running(open_engine([ServeTarget("tiny", tmp_path / "export")])) as server:
        assert server.ask("POST", "/v1/chat/completions", hello()).status == 200
        assert [each["id"] for each in server.ask("GET", "/v1/models").data["data"]] == ["tiny"]


def test_a_gguf_file_is_served_alone(gguf_file: Path, two_adapters: Mapping[str, Path]) -> None:
    with pytest.raises(InputError, match="served alone"):
        open_engine([ServeTarget("file", gguf_file), ServeTarget("health", two_adapters["health"])])


@pytest.fixture(scope="module")
def dora_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, base = tmp_path_factory.mktemp("dora") / "dora", find_base(str(tiny_model))
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        LoraConfig(r=2, use_dora=True, target_modules=["q_proj"], init_lora_weights=False),
    )
    with writing(folder, Adapter, overwrite=False) as writer:
        model.save_pretrained(str(writer.folder))
        load_tokenizer(tiny_model, base).save_pretrained(writer.folder)
        settings = AdapterRecipe(model=str(tiny_model), quantization="none", use_dora=True)
        writer.manifest["config"] = settings.model_dump(mode="json") | {"model": base.name}
        writer.manifest["parents"] = {"base_model": base.describe()}
    return folder


def test_an_adapter_that_llama_cpp_cannot_add_is_computed_by_transformers_or_refused(
    dora_adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InputError, match=r"DoRA.*Merge first: slmtune merge"):
        open_engine([ServeTarget("dora", dora_adapter)], engine="llama.cpp")
    caplog.set_level(logging.INFO)
    engine = open_engine([ServeTarget("dora", dora_adapter)], engine="auto")
    assert isinstance(engine, Engine)
    assert not isinstance(engine._scheduler._runner, LlamaRunner)
    assert "it is a DoRA adapter" in caplog.text
    engine.close()


def test_a_missing_package_is_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp.xllamacpp", None)  # an import fails as if it were not installed
    open_library.cache_clear()
    with pytest.raises(InputError, match=r"xllamacpp.*slmtune\[gguf\]"):
        open_engine([ServeTarget("tiny", tiny_model)], engine="llama.cpp")
    engine = open_engine([ServeTarget("tiny", tiny_model)], engine="auto")
    assert isinstance(engine, Engine)
    assert not isinstance(engine._scheduler._runner, LlamaRunner)
    engine.close()


def test_a_release_with_other_structures_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(llama_library.CONTEXT_DEFAULTS, "n_batch", 4096)
    open_library.cache_clear()
    with pytest.raises(InputError, match="does not know"):
        open_library()
    monkeypatch.undo()
    open_library.cache_clear()
    assert open_library().multiplication > 0
