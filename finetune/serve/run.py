"""`slmtune serve`: serves artifacts over HTTP for clients of the OpenAI API."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from finetune.errors import InputError
from finetune.recipe.options import ServeOptions, check
from finetune.serve.api.keys import ApiKey
from finetune.serve.api.tls import check_certificate
from finetune.serve.engine.engine import Engine
from finetune.serve.runners.memory import require_room
from finetune.serve.targets import ServeTarget, open_engine
from finetune.serve.warm_up import warm_up

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
    bytes that this process may take.

    Raises:
        PortInUseError: the port is in use; checked before a model is loaded.
        ConfigError: an option is out of range.
        InputError: other machines could reach the host without a key, the certificate, an origin or the folder of
            adapters cannot be used, there is nothing to serve, it does not fit in `max_memory`, or a library is missing.
        SlmtuneError: what `finetune.serve.targets.open_engine` raises.
    """
    options = options or ServeOptions()
    check(options)
    _require_libraries()
    check_certificate(options.ssl_certfile, options.ssl_keyfile)
    has_clients = any(not key.is_admin for key in keys)
    _check_origins(options.cors_origins, with_keys=has_clients)
    _check_admin(options.adapter_dir, has_key=any(key.is_admin for key in keys))
    from finetune.serve.api.listen import bind, run, url_of  # here: it needs those libraries

    with bind(options.host, options.port, local_only=not has_clients) as server_socket:
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
