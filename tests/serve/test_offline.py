"""Offline means offline: a server that starts, loads adapters and answers contacts nothing but this machine."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.command import SLMTUNE, fresh_environment

KEY = "key-of-the-administrator"
# Python runs this first in each of its processes: it writes down which addresses are looked up or contacted, and asks for one.
GUARD = """
import os, socket, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        host = address[0] if isinstance(address, tuple) else address
        with open(os.environ["SOCKETS"], "a") as file:
            print(event, host, file=file)

sys.addaudithook(watch)
socket.getaddrinfo("localhost", None)
"""
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--offline",)], ids=["folders", "offline"])
def test_nothing_but_this_machine_is_contacted(
    two_adapters: dict[str, Path], tmp_path: Path, flags: tuple[str, ...]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(GUARD, "utf-8")
    (tmp_path / "keys").write_text(KEY, "utf-8")
    sockets = tmp_path / "sockets"
    environment = fresh_environment() | {"SOCKETS": str(sockets)}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        environment.pop(name, None)
    command = [*SLMTUNE, "serve", f"health={two_adapters['health']}", "--port", "0", "--json", *flags]
    command += ["--adapter-dir", str(two_adapters["finance"].parent), "--admin-key-file", str(tmp_path / "keys")]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["url"].removeprefix("http://")
            assert ask(address, "/v1/load_lora_adapter", {"lora_name": "finance"}) == 200
            for model in ("health", "finance"):
                messages = [{"role": "user", "content": "See https://example.org/a.png"}]
                assert (
                    ask(address, "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 3}) == 200
                )
            assert ask(address, "/v1/completions", {"model": "absent/model", "prompt": "The"}) == 404
        finally:
            process.send_signal(signal.SIGTERM)
    contacts = {tuple(line.split(" ", 1)) for line in sockets.read_text("utf-8").splitlines()}
    assert ("socket.getaddrinfo", "localhost") in contacts
    assert {host for _, host in contacts} <= LOOPBACK


def ask(address: str, path: str, body: dict[str, object]) -> int:
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        connection.request("POST", path, json.dumps(body), headers)
        return connection.getresponse().status
