"""Loads models into memory: a base model, quantised or not, alone or with an adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import finetune.models.eager_bitsandbytes  # isort: skip # noqa: F401 # before PEFT, which imports bitsandbytes too
import torch
import transformers
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from finetune.artifacts import Adapter, Model
from finetune.errors import ArtifactError, InputError
from finetune.machine import device_name, has_bfloat16
from finetune.models.chat_template import end_of_turn_ids
from finetune.models.config import read_config
from finetune.models.find import BaseModel, base_of, weights_fingerprint
from finetune.models.heads import Head
from finetune.models.presets import CAUSAL_ONLY
from finetune.models.quantize import keep_linear4bit_unpacked, nf4, release_file, unpack_on_cpu, unpack_scales
from finetune.models.structure import has_transposed_weights
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, with its tokenizer."""

    model: Any  # a PreTrainedModel, or a PeftModel over one
    tokenizer: PreTrainedTokenizerBase
    base: BaseModel
    head: Head | None = None  # of an encoder


def load(base: BaseModel, recipe: AdapterRecipe, adapter: Path | None = None, head: Head | None = None) -> LoadedModel:
    """Load a base model in the precision of `recipe` (4 bits or plain), optionally with an adapter, for inference.

    Raises:
        ArtifactError: the adapter's tensors do not fit the model.
    """
    model: PreTrainedModel | PeftModel = load_base(base.folder, recipe, head=head)
    tokenizer = load_tokenizer(adapter or base.folder, base)
    if adapter is not None:
        model = attach_adapter(model, adapter)
    model.eval()
    return LoadedModel(model, tokenizer, base, head)


def load_adapter(adapter: Adapter, model: str | None = None) -> LoadedModel:
    """Load an adapter on its base model, quantised as in training."""
    recipe, head = AdapterRecipe.model_validate(adapter.config), Head.of_manifest(adapter.manifest)
    return load(base_of(adapter, model), recipe, adapter.path, head)


def load_merged(model: Model) -> LoadedModel:
    """Load a merged model, unquantised."""
    base = BaseModel(model.path.name, model.path, "local", weights_fingerprint(model.path))
    return load(base, AdapterRecipe(load_in_4bit=False), head=Head.of_manifest(model.manifest))


def load_base(folder: Path, recipe: AdapterRecipe, *, head: Head | None = None, unpack: bool = True) -> PreTrainedModel:
    """Load the weights of a causal language model, or of an encoder with a head, onto the first GPU or the CPU.

    With `load_in_4bit`, the linear layers are quantised to NF4 and the other layers keep the compute precision. On a CPU,
    with `unpack`, quantised layers are unpacked once if memory allows; training unpacks them itself, one at a time.
    transformers chooses the attention: its fused kernel, or its plain computation for architectures such as Gemma 2 that
    bound their scores, which no fused kernel does.

    Raises:
        InputError: the folder does not contain a causal language model that transformers can load.
    """
    if head is None:
        require_causal(folder)
    dtype = compute_dtype(recipe)
    options: dict[str, Any] = {"device_map": {"": device_name()}, "dtype": dtype}
    if recipe.load_in_4bit:
        options["quantization_config"] = nf4(dtype)
    try:
        auto_class: Any = AutoModelForCausalLM if head is None else head.auto_class
        options |= {} if head is None else head.config
        model: PreTrainedModel = auto_class.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"The model in {folder} cannot be loaded: {reason}. slmtune needs config.json and safetensors"
        ) from None
    if recipe.load_in_4bit:
        release_file(model)
    if not (unpack and unpack_on_cpu(model)):
        keep_linear4bit_unpacked(model)
        unpack_scales(model)
    return model


def require_causal(folder: Path) -> None:
    """Refuse a folder whose config.json does not describe a causal language model that transformers itself can run.

    Raises:
        InputError: there is no config.json; the model is of another kind, or of a type that transformers does not know;
            or it needs Python code of its own, which slmtune never executes.
    """
    config = read_config(folder)
    kind, names = config.get("model_type"), config.get("architectures") or []
    if kind not in CONFIG_MAPPING_NAMES:
        problem = (
            "needs Python code from its own repository, and slmtune does not execute such code"
            if "auto_map" in config
            else f"is not known to transformers {transformers.__version__}; a newer version may know it"
        )
        raise InputError(f"{folder.name} cannot be loaded: its model type {kind!r} {problem}. {CAUSAL_ONLY}")
    if not any("CausalLM" in name or "LMHead" in name for name in names):
        raise InputError(
            f"{folder.name} is not a causal language model ({', '.join(names) or 'no architecture'}). {CAUSAL_ONLY}"
        )


def attach_adapter(model: PreTrainedModel | PeftModel, folder: Path, name: str = "default") -> PeftModel:
    """Add a PEFT adapter to a loaded base model, next to any adapters with other names that it already has.

    Raises:
        ArtifactError: tensors are missing, unexpected or of another shape; PEFT itself only warns.
    """
    file = folder / "adapter_model.safetensors"
    try:
        config = PeftConfig.from_pretrained(str(folder), inference_mode=True)
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        config.fan_in_fan_out = has_transposed_weights(base)  # in 4 bits no layer has
        config.base_model_name_or_path = base.name_or_path  # a local folder: PEFT would look up a name on the Hub
        if isinstance(model, PeftModel):
            peft_model = model
            peft_model.add_adapter(name, config)
        else:
            peft_model = PeftModel(model, config, adapter_name=name)
        peft_model.load_adapter(str(folder), name, is_trainable=False)
        with safe_open(file, framework="pt") as tensors:
            stored = set(tensors.keys())
    except (RuntimeError, OSError, ValueError) as error:
        raise ArtifactError(
            f"The adapter at {folder} does not fit its base model: {str(error).splitlines()[0]}"
        ) from None
    expected = set(get_peft_model_state_dict(peft_model, adapter_name=name))
    if stored != expected:
        raise ArtifactError(
            f"The adapter at {folder} does not fit its base model: {len(expected - stored)} tensors are missing and "
            f"{len(stored - expected)} are unexpected"
        )
    return peft_model


def greedy_settings(tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """Settings for reproducible answers: always the most likely token, up to the end of the turn."""
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_of_turn_ids(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )


def compute_dtype(recipe: AdapterRecipe) -> torch.dtype:
    """The precision of matrix products in the recipe; by default, bfloat16 if the GPU computes in it, else float32."""
    return torch.bfloat16 if recipe.precision(has_bfloat16=has_bfloat16()) == "bfloat16" else torch.float32
