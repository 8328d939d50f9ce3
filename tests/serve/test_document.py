"""/openapi.json: it describes every route, and no request that follows or breaks it makes the server fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune.recipe.options import ServeOptions
from finetune.serve.app import create_app
from finetune.serve.engine import Engine

from .conftest import ALICE, running

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


@pytest.mark.slow
def test_no_request_makes_the_server_fail(engine: Engine, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        "--checks",
        CHECKS,
        "--max-examples",
        "20",
        "--seed",
        "1",
    ]
    options = [
        "--phases",
        "examples,coverage,fuzzing",
        "--header",
        f"Authorization:{KEY['Authorization']}",
        "--no-color",
    ]
    with running(engine, ALICE) as server:
        result = subprocess.run(
            [*command, *options, "--suppress-health-check", "all", f"{server.url}/openapi.json"],
            capture_output=True,
            text=True,
            timeout=500,
            cwd=tmp_path,  # where it leaves its cache
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
        )
        assert server.ask("GET", "/health").status == 200
    assert result.returncode == 0, result.stdout
