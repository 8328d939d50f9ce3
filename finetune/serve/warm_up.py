"""One short request before a server is ready, so that the first client does not wait for what libraries do only once."""

from __future__ import annotations

from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams
from finetune.serve.engine.kinds import AnyEngine


def warm_up(engine: AnyEngine) -> None:
    """Let an engine answer once.

    Raises:
        SlmtuneError: it cannot.
    """
    name = next(iter(engine.served))
    if isinstance(engine, Engine):
        for _ in engine.generate("The", GenerationParams(max_tokens=2, temperature=0), name):
            pass
    else:
        context = "The bank grew." if engine.head.kind == "extraction" else None
        engine.classify([("What grew?", context)], name)
