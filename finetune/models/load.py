"""Loads models into memory: a base model, quantised or not, alone or with an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import finetune.models.eager_bitsandbytes  # isort: skip # noqa: F401 # before PEFT, which imports bitsandbytes too
import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_utils,
)

from finetune.artifacts import Adapter, Model
from finetune.errors import ArtifactError, CheckFailedError, InputError
from finetune.machine import device_name, has_bfloat16
from finetune.models.chat_template import end_of_turn_ids
from finetune.models.config import context_of
from finetune.models.effect import require_effect
from finetune.models.find import BaseModel, base_of, weights_fingerprint
from finetune.models.heads import Head, build_skeleton, head_modules
from finetune.models.kind import require_kind
from finetune.models.packed import load_packed
from finetune.models.quantize import (
    compute_from_int8,
    keep_linear4bit_unpacked,
    quantization_config,
    unpack_layers,
    unpack_on_cpu,
    unpack_scales,
)
from finetune.models.structure import has_transposed_weights
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.adapter import FOUR_BIT


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, with its tokenizer."""

    model: Any  # a PreTrainedModel, or a PeftModel over one
    tokenizer: PreTrainedTokenizerBase
    base: BaseModel
    head: Head | None = None  # of an encoder

    @property
    def context(self) -> int:
        """The length of the context in tokens: the model's, or else its tokenizer's."""
        return int(context_of(self.model.config.to_dict()) or self.tokenizer.model_max_length)


def load(
    base: BaseModel,
    recipe: AdapterRecipe,
    adapter: Path | None = None,
    head: Head | None = None,
    *,
    must_unpack: bool = False,
) -> LoadedModel:
    """Load a base model, quantised as in `recipe`, optionally with an adapter, for inference.

    With `must_unpack`, its layers are plain ones with the values of the quantised weights, whatever memory that takes.

    Raises:
        ArtifactError: the adapter's tensors do not fit the model.
        CheckFailedError: the adapter changes nothing.
    """
    model: PreTrainedModel | PeftModel = load_base(base.folder, recipe, head=head, unpack=not must_unpack)
    if must_unpack:
        unpack_layers(model)
        quantizer: Any = model.hf_quantizer
        quantizer.remove_quantization_config(model)
    tokenizer = load_tokenizer(adapter or base.folder, base)
    if adapter is not None:
        model = attach_adapter(model, adapter).eval()
        require_effect(model, adapter, is_encoder=head is not None)
    model.eval()
    return LoadedModel(model, tokenizer, base, head)


def load_adapter(adapter: Adapter, model: str | None = None) -> LoadedModel:
    """Load an adapter on its base model, quantised as in training."""
    recipe, head = AdapterRecipe.model_validate(adapter.config), Head.of_manifest(adapter.manifest)
    return load(base_of(adapter, model), recipe, adapter.path, head)


def load_merged(model: Model) -> LoadedModel:
    """Load a merged model, unquantised."""
    name = str(model.manifest["parents"]["base_model"]["name"])
    base = BaseModel(name, model.path, "local", weights_fingerprint(model.path))
    return load(base, AdapterRecipe(quantization="none"), head=Head.of_manifest(model.manifest))


def load_base(folder: Path, recipe: AdapterRecipe, *, head: Head | None = None, unpack: bool = True) -> PreTrainedModel:
    """Load the weights of a causal language model, or of an encoder with a head, onto the first GPU or the CPU.

    Only linear layers are quantised; the other layers keep the compute precision. On a CPU, with `unpack`, quantised layers
    are unpacked once if memory allows; training unpacks them itself, one at a time.
    transformers chooses the attention: its fused kernel, or its plain computation for architectures such as Gemma 2 that
    bound their scores, which no fused kernel does. A head is never quantised; weights of it that the folder lacks are drawn
    from torch's random numbers.

    Raises:
        InputError: the folder does not contain such a model, or transformers cannot load it.
    """
    require_kind(folder, "causal" if head is None else "encoder")
    # cuDNN prepares a plan for each shape of attention, and almost every batch has new ones: 41 % of the CPU time of five
    # training steps of SmolLM2-135M on an H100 (profile, torch 2.11).
    torch.backends.cuda.enable_cudnn_sdp(False)
    dtype = compute_dtype(recipe)
    options: dict[str, Any] = {"device_map": {"": device_name()}, "dtype": dtype}
    auto_class: Any = AutoModelForCausalLM if head is None else head.auto_class
    if head is not None:
        options |= {"ignore_mismatched_sizes": True, **head.config}  # a head for other classes is replaced
    try:
        if recipe.is_quantized:
            plain = None if head is None else head_modules(build_skeleton(folder, head))
            options["quantization_config"] = quantization_config(recipe.quantization, dtype, plain)

        def read() -> PreTrainedModel:
            with _reading_each_tensor() if recipe.is_quantized and device_name() == "cpu" else nullcontext():
                model: PreTrainedModel = auto_class.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, **options
                )
            return model

        is_kept = recipe.quantization in FOUR_BIT and device_name() == "cpu" and head is None
        model = load_packed(folder, recipe.quantization, dtype, read) if is_kept else read()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"The model in {folder} cannot be loaded: {reason}. slmtune needs config.json and safetensors"
        ) from None
    compute_from_int8(model, dtype)
    if not (unpack and unpack_on_cpu(model)):
        keep_linear4bit_unpacked(model)
        unpack_scales(model)
    return model


@contextmanager
def _reading_each_tensor() -> Iterator[None]:
    """Let transformers read each tensor into memory of its own when its turn comes, as it does on Windows.

    It maps the whole file otherwise (transformers 5.23): the pages stay in memory beside the packed weights until all are
    read, and afterwards for one tensor of the file's precision. Remove when `from_pretrained` can be asked for it;
    tests/models/test_load.py fails without it.
    """
    library: Any = modeling_utils
    mapping = library.safe_open
    library.safe_open = lambda file, **options: safe_open(file, **options | {"backend": "pread"})
    try:
        yield
    finally:
        library.safe_open = mapping


def attach_adapter(model: PreTrainedModel | PeftModel, folder: Path, name: str = "default") -> PeftModel:
    """Add a PEFT adapter to a loaded base model, next to any adapters with other names that it already has.

    Raises:
        ArtifactError: tensors are missing, unexpected or of another shape; PEFT itself only warns.
        CheckFailedError: not a single tensor belongs to the model, so the adapter would change nothing.
    """
    file = folder / "adapter_model.safetensors"
    try:
        config = PeftConfig.from_pretrained(str(folder), inference_mode=True)
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        config.fan_in_fan_out = has_transposed_weights(base)  # packed in 4 or 8 bits, no layer has
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
    expected = set(get_peft_model_state_dict(peft_model, adapter_name=name, save_embedding_layers=False))
    if expected and stored.isdisjoint(expected):
        raise CheckFailedError(
            f"The adapter at {folder} changes nothing: none of its {len(stored)} tensors belongs to a layer of its base model, "
            f"which expects {min(expected)}, for example. Train again, or rename the keys in {file.name}"
        )
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
