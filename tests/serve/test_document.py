"""/openapi.json: it describes every route, and no request that follows or breaks it makes the server fail."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from finetune.recipe.options import ServeOptions
from finetune.serve import ApiKey
from finetune.serve.api.app import create_app
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.kinds import AnyEngine
from finetune.serve.targets import ServeTarget, open_engine

from ..encoders import NEWS, write_encoder, write_encoder_adapter
from .conftest import ALICE, Running, make_adapter, running

ADMIN = ApiKey("root", "key-of-the-administrator", is_admin=True)
KEY = {"Authorization": f"Bearer {ALICE.value}"}
# What the document promises of answers. Whether data is refused is not promised: a context is not in the document.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method,"
    "allow_header_conformance,ignored_auth"
)


def test_document_describes_every_route_and_needs_the_key(engine: Engine) -> None:
    with running(engine, ALICE) as server:
        assert server.ask("GET", "/openapi.json").status == 401
        document = server.ask("GET", "/openapi.json", headers=KEY).data
    routes: list[Any] = create_app(engine, ServeOptions()).routes
    expected = {(route.path.replace(":path}", "}"), method.lower()) for route in routes for method in route.methods}
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == expected
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"]
            assert set(operation["responses"]) == {"200", "default"}
            assert ("security" in operation) == (path not in ("/health", "/ready", "/")), path
            assert ("requestBody" in operation) == (method == "post"), path
    for name in re.findall(r'"#/components/schemas/(\w+)"', str(document).replace("'", '"')):
        assert name in schemas
    assert schemas["ChatRequest"]["properties"]["model"]["enum"] == ["tiny"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyEngine]:
    folder = tmp_path_factory.mktemp("models")
    adapter = write_encoder_adapter(folder / "news", write_encoder(folder / "tiny-bert", "bert"), NEWS)
    engine = open_engine([ServeTarget("news", adapter)])
    yield engine
    engine.close()
    engine.join()


@pytest.fixture(scope="module")
def llama(two_adapters: Mapping[str, Path]) -> Iterator[AnyEngine]:
    engine = open_engine([ServeTarget(name, folder) for name, folder in two_adapters.items()], engine="llama.cpp")
    yield engine
    engine.close()
    engine.join()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["engine", "encoder", "llama"])
def test_no_request_makes_the_server_fail(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune.serve.engine.engine.ANSWER_TOKENS", 4)  # most requests set no other limit
    engine: AnyEngine = request.getfixturevalue(kind)
    with running(engine, ALICE) as server:
        ask_everything(server, ALICE, tmp_path)


@pytest.mark.slow
def test_no_request_of_an_administrator_makes_the_server_fail(
    two_adapters: Mapping[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    root = tmp_path / "adapters"
    make_adapter(root / "news", tiny_model, 10)
    engine = open_engine([ServeTarget("health", two_adapters["health"])])
    try:
        with running(engine, ALICE, ADMIN, adapter_dir=root) as server:
            told = ask_everything(server, ADMIN, tmp_path, "--include-path-regex", "lora_adapter")
            assert "2 selected" in told
    finally:
        engine.close()
        engine.join()


def ask_everything(server: Running, key: ApiKey, folder: Path, *words: str) -> str:
    """Let Schemathesis send what the document allows and forbids; the server must still be well afterwards. Its report."""
    options = {"--checks": CHECKS, "--max-examples": "4", "--seed": "1", "--phases": "examples,coverage,fuzzing"}
    options |= {"--header": f"Authorization:Bearer {key.value}", "--suppress-health-check": "all"}
    options |= {"--url": server.url}
    given = [word for option in options.items() for word in option]
    document = folder / "openapi.json"
    document.write_text(json.dumps(server.ask("GET", "/openapi.json", headers=KEY).data))
    result = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", *given, *words, "--no-color", str(document)],
        capture_output=True,
        text=True,
        cwd=folder,  # it leaves a cache behind
        timeout=500,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        check=False,
    )
    assert server.ask("GET", "/health").status == 200
    assert result.returncode == 0, result.stdout
    return result.stdout
