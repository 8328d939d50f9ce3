"""`slmtune serve`: serves artifacts over HTTP for clients of the OpenAI API."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.errors import InputError
from finetune.recipe.option_fields import check
from finetune.recipe.options import ServeOptions
from finetune.serve.api.address import bind, url_of
from finetune.serve.api.keys import ApiKey
from finetune.serve.api.tls import check_certificate
from finetune.serve.engine.engine import Engine
from finetune.serve.runners.memory import require_room
from finetune.serve.targets import ServeTarget, open_engine
from finetune.serve.vllm import hand_over, is_loopback
from finetune.serve.vllm_process import reachable_url, require_vllm, run_vllm
from finetune.serve.warm_up import warm_up

log = logging.getLogger(__name__)

ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")  # as browsers send it: no path, not even a slash


def serve(
    targets: Sequence[ServeTarget],
    options: ServeOptions | None = None,
    *,
    keys: Sequence[ApiKey] = (),
    model: str | None = None,
    max_memory: int | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM, and return the signal's number.

    Requests in progress get `options.drain_seconds` to finish. `on_ready` receives the server's URL once it is listening.
    `model` is the base model of the adapters, if it is no longer where it was during training; `max_memory` is the number of
    bytes that this process may take. vLLM takes the first of `keys`, and adapters that were exported for it.

    Raises:
        PortInUseError: the port is in use; checked before a model is loaded.
        ConfigError: an option is out of range.
        InputError: other machines could reach the host without a key, the certificate, an origin or the folder of
            adapters cannot be used, there is nothing to serve, it does not fit in `max_memory`, or a library is missing;
            or vLLM cannot serve it, as `finetune.serve.vllm.hand_over` says.
        SlmtuneError: what `finetune.serve.targets.open_engine` raises.
    """
    options = options or ServeOptions()
    check(options)
    check_certificate(options.ssl_certfile, options.ssl_keyfile)
    clients = [key for key in keys if not key.is_admin]
    _check_origins(options.cors_origins, with_keys=bool(clients))
    if options.engine == "vllm":
        _refuse_own_options(keys, max_memory)
        return _serve_with_vllm(targets, options, clients, model, on_ready)
    _require_libraries()
    _check_admin(options.adapter_dir, has_key=len(clients) < len(keys))
    from finetune.serve.api.listen import run  # here: it needs those libraries

    with bind(options.host, options.port, local_only=not clients) as server_socket:
        url = url_of(options, server_socket)
        engine = open_engine(targets, model=model, engine=options.engine, max_memory=max_memory)
        context = engine.context if isinstance(engine, Engine) else None
        try:
            require_room(context, max_memory)
            warm_up(engine)
            require_room(context, max_memory)  # now all weights are in memory
            return run(
                engine,
                server_socket,
                options,
                keys,
                lambda: on_ready(url) if on_ready is not None else None,
            )
        finally:
            engine.close()
            engine.join()


def _serve_with_vllm(
    targets: Sequence[ServeTarget],
    options: ServeOptions,
    clients: Sequence[ApiKey],
    model: str | None,
    on_ready: Callable[[str], None] | None,
) -> int:
    require_vllm()
    with bind(options.host, options.port, local_only=not clients) as server_socket:
        url, port = url_of(options, server_socket), server_socket.getsockname()[1]
    handover = hand_over(targets, replace(options, port=port), has_key=bool(clients), model=model)
    if handover.exports:
        commands = "; ".join(export.command for export in handover.exports)
        raise InputError(f"vLLM needs exports that do not exist yet. Make them with: {commands}")
    if clients and not is_loopback(options.host):
        log.warning(
            "vLLM asks for the key under /v1 only: other routes, such as /invocations, answer without it. Let a reverse proxy "
            "pass on nothing but /v1."
        )
    if len(clients) > 1:
        log.warning("vLLM takes one key: the first of %d, %s.", len(clients), clients[0].name)
    return run_vllm(
        handover.command,
        reachable_url(url.partition(":")[0], options.host, port),
        key=clients[0].value if clients else None,
        drain_seconds=options.drain_seconds,
        on_ready=lambda: on_ready(url) if on_ready is not None else None,
    )


def _refuse_own_options(keys: Sequence[ApiKey], max_memory: int | None) -> None:
    if any(key.is_admin for key in keys):
        raise InputError(
            "vLLM does not know keys of administrators. Leave out --admin-key-file, and restart it for others"
        )
    if max_memory is not None:
        raise InputError("--max-memory is for slmtune's own engines; vLLM takes a share of the GPU. Leave it out")


def _check_origins(origins: Sequence[str], *, with_keys: bool) -> None:
    for origin in origins:
        if origin == "*" and not with_keys:
            raise InputError(
                "--cors-origin '*' would let any web page use a server without a key. Name the origin, or add --api-key-file"
            )
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise InputError(
                f"--cors-origin {origin} is not an origin. Write it without a path, as in https://example.org"
            )


def _check_admin(root: Path | None, *, has_key: bool) -> None:
    if root is None and has_key:
        raise InputError("The key of administrators is for loading adapters. Name their folder with --adapter-dir")
    if root is not None and not root.is_dir():
        raise InputError(
            f"--adapter-dir {root} is not a folder. Name the one that contains the folders of the adapters"
        )


def _require_libraries() -> None:
    missing = [
        name
        for name in ("fastapi", "llguidance", "prometheus_client", "uvicorn")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise InputError(f"{', '.join(missing)} cannot be imported. Install with: pip install 'slmtune[serve]'")
