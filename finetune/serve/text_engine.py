"""An engine for a causal language model and its adapters, computed by transformers or llama.cpp: the faster one, if asked."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Adapter, library_versions, write_aside, write_json
from finetune.errors import InputError
from finetune.machine import cache_folder, describe_cpu, device_name, release_memory
from finetune.models.find import BaseModel
from finetune.models.load import load
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import Engine as EngineName
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import ServedModel
from finetune.serve.llama_engine import open_llama_engine
from finetune.serve.runners.memory import require_base_fits
from finetune.serve.runners.speed import BATCH
from finetune.serve.runners.transformers_runner import TransformersRunner

LIBRARIES = ("torch", "transformers", "xllamacpp")
Open = Callable[[], Engine]

log = logging.getLogger(__name__)


def open_text_engine(
    base: BaseModel,
    recipe: AdapterRecipe,
    tokenizer: PreTrainedTokenizerBase,
    adapters: Sequence[tuple[str, Adapter]],
    served: Sequence[ServedModel],
    engine: EngineName,
    max_memory: int | None,
) -> Engine:
    """An engine of the kind that was asked for; `auto` is the faster one, which without a GPU has to be measured.

    Raises:
        CheckFailedError: an adapter changes nothing.
        InputError: llama.cpp was asked for and does not support the model or an adapter, or is not installed.
        SlmtuneError: the base model or an adapter cannot be loaded.
    """
    models = base, recipe, tokenizer, adapters, served, max_memory
    llama, transformers = partial(open_llama_engine, *models), partial(_open_transformers_engine, *models)
    if engine == "llama.cpp":
        return llama()
    if engine == "transformers" or device_name() != "cpu":
        return transformers()
    facts = [base.fingerprint, recipe.quantization, recipe.compute_dtype, min(len(adapters), BATCH)]
    key = json.dumps([*facts, describe_cpu(), library_versions(LIBRARIES)])
    return _open_faster(
        llama, transformers, cache_folder() / "engines" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    )


def _open_transformers_engine(
    base: BaseModel,
    recipe: AdapterRecipe,
    tokenizer: PreTrainedTokenizerBase,
    adapters: Sequence[tuple[str, Adapter]],
    served: Sequence[ServedModel],
    max_memory: int | None,
) -> Engine:
    require_base_fits(base, recipe, max_memory)
    loaded = replace(load(base, recipe), tokenizer=tokenizer)
    runner = TransformersRunner(loaded, max_memory=max_memory)
    for name, adapter in adapters:
        runner.load_adapter(name, adapter.path)
    return Engine(loaded, served, runner=runner, precision=(recipe.quantization, recipe.compute_dtype))


def _open_faster(llama: Open, transformers: Open, file: Path) -> Engine:
    """The faster engine according to `file`, or to a measurement that is kept there; one at a time is in memory."""
    known = _recall(file)
    if known is not None:
        log.info("%s computes, the faster engine when both were measured (%s).", known, file)
    if known == "transformers":
        return transformers()
    try:
        engine = llama()
    except InputError as error:
        log.info("transformers computes, not llama.cpp: %s.", error)
        return transformers()
    if known == "llama.cpp":
        return engine
    seconds = {"llama.cpp": _measure_and_close(engine)}
    del engine
    release_memory()
    engine = transformers()
    seconds["transformers"] = engine.measure()
    best = min(seconds, key=lambda name: seconds[name])
    _keep(file, best, seconds)
    if best == "transformers":
        return engine
    engine.close()
    engine.join()
    del engine
    release_memory()
    return llama()


def _measure_and_close(engine: Engine) -> float:
    try:
        return engine.measure()
    finally:
        engine.close()
        engine.join()


def _recall(file: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        name = json.loads(file.read_text("utf-8"))["engine"]
        return name if name in ("llama.cpp", "transformers") else None
    return None


def _keep(file: Path, best: str, seconds: Mapping[str, float]) -> None:
    """Note what was measured; a cache that cannot be written costs only another measurement."""
    figures = " and ".join(f"{1000 * each:.1f} ms with {name}" for name, each in seconds.items())
    log.info("%s computes: measured just now, %d requests at once take %s per token.", best, BATCH, figures)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(file) as staging:
            write_json(staging, {"engine": best, "seconds_per_token": dict(seconds)})
