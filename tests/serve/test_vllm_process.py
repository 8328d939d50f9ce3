"""`slmtune serve --engine vllm`: vLLM is started, watched and stopped. A small server stands in for it where it is missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.errors import InputError
from finetune.recipe.options import ServeOptions
from finetune.serve import ApiKey, ServeTarget, serve
from finetune.serve.vllm_process import reachable_url

from ..command import Command
from ..command import run as slmtune

STAND_IN = """\
#!{python} -IS
# Answers /health as vLLM does, and tells what it was started with. Its first argument is `serve`, as vLLM's.
import http.server, json, os, pathlib, signal, sys
words = sys.argv[1:]
value = lambda option: words[words.index(option) + 1]
pathlib.Path({seen!r}).write_text(json.dumps([words, os.environ.get("VLLM_API_KEY")]))
if {code} is not None:
    sys.exit({code})
signal.signal(signal.SIGTERM, signal.SIG_IGN if {stubborn} else lambda *_: os._exit(0))
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_): ...
http.server.HTTPServer((value("--host"), int(value("--port"))), Health).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a command `vllm`, and returns the file in which it writes its words and its key."""

    def install(*, code: int | None = None, stubborn: bool = False) -> Path:
        seen, program = tmp_path / "seen.json", tmp_path / "bin" / "vllm"
        program.parent.mkdir()
        program.write_text(
            STAND_IN.format(python=sys.executable, seen=str(seen), code=code, stubborn=stubborn), "utf-8"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return seen

    return install


@contextmanager
def started(*words: object, cwd: Path) -> Iterator[tuple[Command, dict[str, Any]]]:
    """A running `slmtune serve` that has said that it is ready, and what it said."""
    command = Command("serve", *words, "--json", cwd=cwd)
    try:
        assert command.until(lambda: command.stdout.endswith("}\n")), command.stderr
        yield command, json.loads(command.stdout)
    finally:
        if command.running:
            command.kill()


def test_adapters_are_exported_and_vllm_serves_them(
    two_adapters: dict[str, Path], tmp_path: Path, stand_in: Any
) -> None:
    seen, keys = stand_in(), tmp_path / "keys"
    keys.write_text("anna secret-1\nben secret-2\n", "utf-8")
    adapters = {name: Path(shutil.copytree(path, tmp_path / name)) for name, path in two_adapters.items()}
    targets = [f"{name}={path}" for name, path in adapters.items()]
    with started(*targets, "--engine", "vllm", "--port", 0, "--api-key-file", keys, cwd=tmp_path) as (command, ready):
        with urllib.request.urlopen(f"{ready['url']}/health", timeout=10) as answer:
            assert answer.status == 200
        words, key = json.loads(seen.read_text("utf-8"))
        exports = [tmp_path / f"{name}-vllm" for name in adapters]
        modules = [f"{name}={folder}" for name, folder in zip(adapters, exports, strict=True)]
        after = words.index("--lora-modules") + 1
        assert (words[0], key, words[after : after + 2]) == ("serve", "secret-1", modules)
        assert all((folder / "adapter_config.json").is_file() for folder in exports)
        assert "secret" not in " ".join(words)
        command.send(signal.SIGTERM)
        assert command.wait() == 128 + signal.SIGTERM
    assert "vLLM takes one key: the first of 2, anna." in command.stderr


def test_vllm_that_ends_by_itself_is_an_error(tiny_model: Path, tmp_path: Path, stand_in: Any) -> None:
    stand_in(code=7)
    done = slmtune("serve", f"plain={tiny_model}", "--engine", "vllm", "--port", 0, cwd=tmp_path)
    assert done.returncode == 1
    assert "vLLM has ended by itself with exit code 7" in done.stderr


def test_second_signal_ends_a_vllm_that_does_not(tiny_model: Path, tmp_path: Path, stand_in: Any) -> None:
    stand_in(stubborn=True)
    with started(f"plain={tiny_model}", "--engine", "vllm", "--port", 0, cwd=tmp_path) as (command, ready):
        command.send(signal.SIGINT)
        assert command.runs_on_for(0.5)
        command.send(signal.SIGINT)
        assert command.wait() == 128 + signal.SIGINT
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{ready['url']}/health", timeout=10)


def test_what_vllm_needs_is_checked_first(
    two_adapters: dict[str, Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Any
) -> None:
    options = ServeOptions(engine="vllm", port=0)
    plain = [ServeTarget("plain", tiny_model)]
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        with pytest.raises(InputError, match="there is no command vllm on this machine"):
            serve(plain, options)
    seen = stand_in()
    with pytest.raises(InputError, match=r"exports that do not exist yet\. Make them with: slmtune export"):
        serve([ServeTarget(name, path) for name, path in two_adapters.items()], options)
    with pytest.raises(InputError, match="vLLM does not know keys of administrators"):
        serve(plain, options, keys=[ApiKey("root", "secret", is_admin=True)])
    with pytest.raises(InputError, match="--max-memory is for slmtune's own engines"):
        serve(plain, options, max_memory=1)
    assert not seen.exists()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9"),
        ("0.0.0.0", "http://127.0.0.1:9"),
        ("::", "http://[::1]:9"),
        ("::1", "http://[::1]:9"),
        ("localhost", "http://localhost:9"),
    ],
)
def test_url_reaches_the_server_from_here(host: str, url: str) -> None:
    assert reachable_url("http", host, 9) == url


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or shutil.which("vllm") is None, reason="needs a GPU and the command vllm"
)
def test_real_vllm_answers_as_the_server_here(two_adapters: dict[str, Path], tmp_path: Path) -> None:
    adapters = {name: Path(shutil.copytree(path, tmp_path / name)) for name, path in two_adapters.items()}
    with started(*(f"{name}={path}" for name, path in adapters.items()), "--engine", "vllm", cwd=tmp_path) as (
        _,
        ready,
    ):
        body = {"model": "finance", "messages": [{"role": "user", "content": "Profit rose."}], "max_tokens": 4}
        request = urllib.request.Request(
            f"{ready['url']}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.loads(answer.read())["choices"][0]["message"]["role"] == "assistant"
