"""POST /v1/embeddings: what an encoder gives, in both forms of the API, and why other models give none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from finetune.artifacts import Adapter
from finetune.models.load import load_adapter
from finetune.serve.engine.engine import Engine
from finetune.serve.targets import ServeTarget, open_engine

from ..encoders import ANSWERS, NEWS, write_encoder, write_encoder_adapter
from .conftest import Answer, Running, running

TEXTS = ["profit rose", "shares fell as costs grew. the bank held capital.", "costs"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return write_encoder_adapter(folder / "news", write_encoder(folder / "tiny-bert", "bert"), NEWS)


@pytest.fixture(scope="module")
def server(adapter: Path) -> Iterator[Running]:
    engine = open_engine([ServeTarget("news", adapter)])
    try:
        with running(engine) as server:
            yield server
    finally:
        engine.close()
        engine.join()


def embed(server: Running, texts: Any, **fields: object) -> Answer:
    return server.ask("POST", "/v1/embeddings", {"model": "news", "input": texts, **fields})


def expected(adapter: Path, text: str) -> list[float]:
    loaded = load_adapter(Adapter.open(adapter))
    model: Any = loaded.model
    with torch.inference_mode():
        states = model(**loaded.tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[-1]
    mean = states[0].mean(0)
    vector: list[float] = (mean / mean.norm()).tolist()
    return vector


def test_each_text_has_the_mean_of_its_hidden_states(server: Running, adapter: Path) -> None:
    answer = embed(server, TEXTS)
    assert (answer.status, answer.data["object"], answer.data["model"]) == (200, "list", "news")
    assert [row["index"] for row in answer.data["data"]] == [0, 1, 2]
    for row, text in zip(answer.data["data"], TEXTS, strict=True):
        assert row["embedding"] == pytest.approx(expected(adapter, text), abs=1e-5)
        assert sum(value * value for value in row["embedding"]) == pytest.approx(1, abs=1e-5)
    assert answer.data["usage"]["prompt_tokens"] == answer.data["usage"]["total_tokens"] > 0


def test_the_official_client_reads_both_forms(server: Running) -> None:
    plain = [row["embedding"] for row in embed(server, TEXTS).data["data"]]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        for form in ("float", None):  # without a form, the client asks for base64
            settings: Any = {} if form is None else {"encoding_format": form}
            rows = client.embeddings.create(model="news", input=TEXTS, **settings).data
            for row, values in zip(rows, plain, strict=True):
                assert row.embedding == pytest.approx(values, abs=1e-6)
        assert len(client.embeddings.create(model="news", input=TEXTS[0]).data) == 1


def test_an_adapter_for_answers_embeds_texts_without_a_context(tmp_path: Path) -> None:
    adapter = write_encoder_adapter(tmp_path / "answers", write_encoder(tmp_path / "tiny-bert", "bert"), ANSWERS)
    engine = open_engine([ServeTarget("news", adapter)])
    try:
        with running(engine) as server:
            assert embed(server, TEXTS).status == 200
    finally:
        engine.close()
        engine.join()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [""]}, "input[0]"),
        ({"input": [1, 2]}, "input[0]"),
        ({"input": ["a"] * 257}, "input"),
        ({"input": "word " * 400}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": 5}, "dimensions"),
        ({"model": "nobody"}, "model"),
    ],
)
def test_what_cannot_be_embedded_is_refused(server: Running, fields: dict[str, Any], param: str) -> None:
    answer = server.ask("POST", "/v1/embeddings", {"model": "news", "input": "a", **fields})
    assert answer.status in (400, 404)
    assert answer.error["param"] == param


def test_a_model_that_writes_has_no_embeddings(engine: Engine) -> None:
    with running(engine) as server:
        answer = server.ask("POST", "/v1/embeddings", {"model": "tiny", "input": "a"})
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert "only encoders" in answer.error["message"]
