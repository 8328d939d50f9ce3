"""Adapter → a folder for vLLM and SGLang: the same tensors, the few settings that these read, and how to start them."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from finetune.artifacts import Adapter, Model, write_json
from finetune.errors import CheckFailedError, InputError
from finetune.export.request import Agreement, ExportRequest, Files
from finetune.merge.distance import measure_distance, store_traces
from finetune.merge.held_out import choose_rows
from finetune.models.chat_template import end_of_turn_ids
from finetune.models.find import base_of
from finetune.models.load import load
from finetune.models.tensor_file import list_tensors
from finetune.models.tokenizer import load_tokenizer, save_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.vllm_rules import require_loadable, serve_commands

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
# What these servers read of PEFT's settings; others, even with their defaults, may be refused by some versions.
READ = ("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "use_rslora", "bias", "inference_mode")


def write_vllm(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Callable[[str], None]) -> Files:
    """Write an adapter for vLLM and SGLang, and compare it, loaded by PEFT alone, with the original one.

    Raises:
        InputError: these servers would not load the adapter; names the settings.
        CheckFailedError: the folder is not the adapter.
    """
    if not isinstance(artifact, Adapter):
        raise InputError(
            f"{artifact.path} is a merged model, which vLLM loads as it is: vllm serve {shlex.quote(str(artifact.path))}"
        )
    if artifact.manifest.get("head") is not None:
        raise InputError(f"{artifact.path} is an adapter of an encoder, which vLLM cannot add. Merge it: slmtune merge")
    recipe = AdapterRecipe.model_validate(artifact.config)
    require_loadable(recipe)
    base = base_of(artifact, request.model)
    tokenizer = load_tokenizer(artifact.path, base)
    _write_settings(artifact.path, folder)
    shutil.copyfile(artifact.path / WEIGHTS, folder / WEIGHTS)
    save_tokenizer(tokenizer, folder, is_encoder=False)
    write_json(folder / "generation_config.json", {"eos_token_id": end_of_turn_ids(tokenizer)})
    rows = choose_rows(request.corpus, tokenizer, None)
    plain = recipe.model_copy(update={"quantization": "none"})
    with TemporaryDirectory(dir=folder) as scratch:
        stage("tracing the adapter over the unquantised weights")
        store_traces(load(base, plain, artifact.path), rows, recipe.max_length, Path(scratch, "traces"))
        stage("tracing the exported one")
        exported = load(base, plain, folder)
        distance = measure_distance(exported, rows, recipe.max_length, Path(scratch, "traces"))
    if distance.max_abs_logit_diff != 0:
        raise CheckFailedError(
            f"The exported adapter computes other logits (by up to {distance.max_abs_logit_diff:.2g}). Nothing was written"
        )
    runtime = f"PEFT {metadata.version('peft')} (vLLM itself was not run)"
    return Files(
        agreement=Agreement.on(rows, distance, runtime),
        commands=serve_commands(recipe, artifact.manifest["parents"], request.output_dir),
    )


def _write_settings(adapter: Path, folder: Path) -> None:
    """Write the settings, with the names of the layers spelt out instead of a pattern for their paths."""
    settings = json.loads((adapter / SETTINGS).read_text("utf-8"))
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in list_tensors(adapter / WEIGHTS)}
    write_json(folder / SETTINGS, {name: settings[name] for name in READ} | {"target_modules": sorted(layers)})
