"""An engine that computes with llama.cpp: the base model as a GGUF file, made once, and its adapters."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerBase

from finetune.artifacts import Adapter
from finetune.machine import cache_folder, explain_full_disk
from finetune.models.find import BaseModel
from finetune.models.gguf.families import Shape, read_shape
from finetune.models.gguf.lora import read_lora
from finetune.models.gguf.tensors import place_tensors
from finetune.models.gguf.writer import write_model
from finetune.models.heads import build_skeleton
from finetune.models.llama_library import open_library
from finetune.models.load import LoadedModel, compute_dtype
from finetune.models.quantize import rounding_of
from finetune.recipe import AdapterRecipe
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import ServedModel
from finetune.serve.runners.llama_runner import LlamaRunner
from finetune.serve.runners.memory import require_weights_fit

# With 16 bits, answers in a batch are those of one request at a time: of 8 answers of SmolLM2-135M, 40 tokens each, all were
# equal, but with q8_0 only 5, because it rounds what enters each layer to 8 bits. It was 1.3 times as fast.
PRECISION, WEIGHT_BYTES = "f16", 2
FORM = 1  # of the files in the cache; a file of another one is not used

log = logging.getLogger(__name__)


def open_llama_engine(
    base: BaseModel,
    recipe: AdapterRecipe,
    tokenizer: PreTrainedTokenizerBase,
    adapters: Sequence[tuple[str, Adapter]],
    served: Sequence[ServedModel],
    max_memory: int | None = None,
) -> Engine:
    """An engine for a causal language model and its adapters, over weights rounded as in training.

    Raises:
        CheckFailedError: an adapter changes nothing.
        InputError: llama.cpp does not support the model or the kind of an adapter, or is not installed, or the weights do
            not fit in `max_memory`.
    """
    open_library()  # or its error, before any work
    require_weights_fit(WEIGHT_BYTES * base.parameters, max_memory)
    shape = read_shape(base.folder)
    for _, adapter in adapters:
        read_lora(adapter, shape)
    runner = LlamaRunner(convert_weights(base, shape, recipe), shape, max_memory=max_memory)
    for name, adapter in adapters:
        runner.load_adapter(name, adapter.path)
    loaded = LoadedModel(_describe(base.folder), tokenizer, base)
    precision = recipe.quantization, recipe.compute_dtype
    return Engine(loaded, served, runner=runner, precision=precision)


def convert_weights(base: BaseModel, shape: Shape, recipe: AdapterRecipe) -> Path:
    """The weights of a base model, rounded as in training, as a GGUF file in the cache; written if it is not there.

    Raises:
        DiskFullError: there is no room for it.
        InputError: llama.cpp does not know one of the tensors.
    """
    dtype = compute_dtype(recipe)
    config = json.loads((base.folder / "config.json").read_text("utf-8"))
    key = json.dumps([FORM, PRECISION, base.fingerprint, config, recipe.quantization, str(dtype)], sort_keys=True)
    file = cache_folder() / "gguf" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.gguf"
    if file.is_file():
        return file
    place_tensors(base.folder, shape)  # or its error, before any work
    log.info("Writing the base model as a GGUF file into the cache, %s.", file)
    rounding = (
        rounding_of(build_skeleton(base.folder, None), recipe.quantization, dtype) if recipe.is_quantized else None
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        explain_full_disk(file.parent, "or point XDG_CACHE_HOME at a larger disk"),
        TemporaryDirectory(dir=file.parent) as scratch,
    ):
        whole = Path(scratch, file.name)
        write_model(base.folder, shape, None, whole, precision=PRECISION, name=base.name, rounding=rounding)
        os.replace(whole, file)
    return file


def _describe(folder: Path) -> Any:
    """The model in a folder without its weights, for its settings of generation."""
    model = build_skeleton(folder, None)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model
