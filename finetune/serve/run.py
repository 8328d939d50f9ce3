"""`slmtune serve`: serves artifacts over HTTP for clients of the OpenAI API."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence

from finetune.errors import InputError
from finetune.recipe.options import ServeOptions, check
from finetune.serve.targets import ServeTarget, open_engine


def serve(
    targets: Sequence[ServeTarget],
    options: ServeOptions | None = None,
    *,
    api_key: str | None = None,
    model: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM, and return the signal's number.

    Requests in progress get a few seconds to finish. `on_ready` receives the server's URL once it is listening.
    `model` is the base model of the adapters, if it is no longer where it was during training.

    Raises:
        PortInUseError: the port is in use; checked before a model is loaded.
        ConfigError: the port is out of range.
        InputError: other machines could reach the host without a key, there is nothing to serve, or fastapi or uvicorn
            is missing.
        SlmtuneError: what `finetune.serve.targets.open_engine` raises.
    """
    options = options or ServeOptions()
    check(options)
    _require_libraries()
    if api_key is not None and not api_key.strip():
        raise InputError("The API key is empty. Put a long random string into the --api-key-file")
    from finetune.serve.listen import bind, run, url_of  # here: it needs those libraries

    with bind(options.host, options.port, local_only=api_key is None) as server_socket:
        url = url_of(options.host, server_socket)
        engine = open_engine(targets, model=model)
        try:
            return run(
                engine,
                server_socket,
                options,
                api_key=api_key,
                on_ready=lambda: on_ready(url) if on_ready is not None else None,
            )
        finally:
            engine.close()
            engine.join()


def _require_libraries() -> None:
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{' and '.join(missing)} cannot be imported. Install with: pip install 'slmtune[serve]'")
