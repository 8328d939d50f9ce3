"""Other clients than Python's: the official one for Node, and curl."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.serve.engine.engine import Engine

from .conftest import ALICE, Running, hello, running

NODE_CLIENT = Path(__file__).parent / "node_client"
UNREACHABLE = ("EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "ENOTFOUND", "ETIMEDOUT")  # npm's error codes
KEY = {"Authorization": f"Bearer {ALICE.value}"}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Running]:
    with running(engine, ALICE) as server:
        yield server


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="no Node or no npm on this machine")
def test_the_official_client_for_node_works_unmodified(server: Running, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(NODE_CLIENT, tmp_path / "client"))
    words = ["npm", "ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    if any(code in done.stderr for code in UNREACHABLE):
        pytest.skip("the npm registry cannot be reached, and the library is not in npm's cache")
    assert done.returncode == 0, done.stderr
    command = ["node", "ask.js", f"{server.url}/v1", ALICE.value]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    own = server.ask("POST", "/v1/chat/completions", hello(max_tokens=8, temperature=0), KEY).data
    text = own["choices"][0]["message"]["content"]
    assert said["models"] == ["tiny"]
    assert [said[name] for name in ("whole", "streamed", "response", "events")] == [text] * 4
    assert said["usage"]["total_tokens"] == own["usage"]["total_tokens"]
    assert said["parsed"]["up"] in (True, False)
    assert said["errors"] == [
        ["NotFoundError", 404, "model"],
        ["BadRequestError", 400, "temperature"],
        ["AuthenticationError", 401, "invalid_api_key"],
    ]


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")
def test_curl_works_as_in_the_guide(server: Running) -> None:
    command = ["curl", "--silent", "--no-buffer", "-H", f"Authorization: Bearer {ALICE.value}"]
    body = ["-H", "Content-Type: application/json", "-d", json.dumps(hello(temperature=0))]
    url = f"{server.url}/v1/chat/completions"
    answer = subprocess.run([*command, *body, url], capture_output=True, text=True, timeout=60, check=True)
    own = server.ask("POST", "/v1/chat/completions", hello(temperature=0), KEY).data
    assert json.loads(answer.stdout)["choices"] == own["choices"]
    # Without a content type of its own, curl sends a form, which web pages may send to any server.
    form = subprocess.run([*command, "-d", "{}", url], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(form.stdout)["error"]["message"] == "Content-Type must be application/json"
