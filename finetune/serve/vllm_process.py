"""`slmtune serve --engine vllm`: vLLM's own server in a process of its own, from its start to its end."""

from __future__ import annotations

import ipaddress
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import httpx2

from finetune.errors import EngineStoppedError, InputError

KEY_VARIABLE = "VLLM_API_KEY"  # a key on the command line could be read by all users of the machine
PAUSE = 0.2  # seconds between two looks at a server that starts
LAST_SECONDS = 10.0  # beyond the time that requests have to finish, for vLLM to free the GPU

log = logging.getLogger(__name__)


def require_vllm() -> None:
    """Refuse to go on without vLLM.

    Raises:
        InputError: there is no command `vllm`.
    """
    if shutil.which("vllm") is None:
        raise InputError(
            "--engine vllm needs vLLM, and there is no command vllm on this machine. Install it where the GPU is (pip install "
            "vllm), or print the command for another machine: --print-vllm-command"
        )


def run_vllm(
    command: Sequence[str], url: str, *, key: str | None, drain_seconds: float, on_ready: Callable[[], None]
) -> int:
    """Run vLLM until SIGINT or SIGTERM, and return the signal's number.

    What it prints goes to stderr. Requests in progress get `drain_seconds` to finish.

    Args:
        command: that of vLLM, word by word.
        url: where its /health will answer; `on_ready` is called then.
        key: the one that clients must send.

    Raises:
        EngineStoppedError: vLLM ended by itself.
    """
    environment = {**os.environ, KEY_VARIABLE: key} if key is not None else dict(os.environ)
    # In a session of its own, Ctrl-C reaches it once, through this process.
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )
    with _forwarding(process) as received:
        try:
            _watch(process, url, received, on_ready)
            if not received:
                raise EngineStoppedError(
                    f"vLLM has ended by itself with exit code {process.returncode}. Its lines above say why"
                )
            process.wait(drain_seconds + LAST_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("vLLM does not end and is killed.")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with its workers, which hold the GPU
                process.wait()
    return received[0]


def reachable_url(scheme: str, host: str, port: int) -> str:
    """The URL at which this machine reaches a server that listens on `host`, which may stand for all addresses."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"{scheme}://{host}:{port}"
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"{scheme}://[{address}]:{port}" if address.version == 6 else f"{scheme}://{address}:{port}"


def _watch(process: subprocess.Popen[bytes], url: str, received: Sequence[int], on_ready: Callable[[], None]) -> None:
    """Wait until vLLM has ended or is asked to, and call `on_ready` once it answers."""
    is_ready = False
    # Its certificate is for the name by which clients know it, not for this address.
    with httpx2.Client(verify=False, timeout=5, trust_env=False) as client:
        while process.poll() is None and not received:
            if not is_ready and _is_healthy(client, url):
                is_ready = True
                on_ready()
            time.sleep(PAUSE)


def _is_healthy(client: httpx2.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/health").status_code == httpx2.codes.OK
    except httpx2.HTTPError:
        return False


@contextmanager
def _forwarding(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on as SIGTERM, and a second one as SIGKILL; yields the signals that came."""
    received: list[int] = []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL) if len(received) > 1 else process.terminate()

    if threading.current_thread() is not threading.main_thread():  # there, Python takes no handlers
        yield received
        return
    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
