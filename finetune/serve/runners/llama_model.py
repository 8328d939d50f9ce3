"""Models in GGUF files: loading, and how many sequences of which length fit beside them."""

from __future__ import annotations

from ctypes import create_string_buffer
from pathlib import Path
from typing import Any

from finetune.errors import InputError
from finetune.models.llama_library import last_error
from finetune.serve.runners.runner import SLOT_COUNT

MEMORY_SHARE = 0.1  # of the free memory, for the keys and values of all slots
FEW_TOKENS = 2048  # per slot, for which there are rather fewer slots than shorter ones
VALUE_BYTES = 2  # of a key or value in 16 bits
TEXT_BYTES = 256


def load_model(library: Any, file: Path) -> Any:
    """The model in a file.

    Raises:
        InputError: llama.cpp cannot load it, or it is no causal language model with attention alone.
    """
    settings = library.llama_model_default_params()
    settings.n_gpu_layers = 0
    with last_error() as errors:
        model = library.llama_model_load_from_file(str(file).encode(), settings)
    if not model:
        reason = errors[-1] if errors else "no reason given"
        raise InputError(f"{file} cannot be loaded by llama.cpp: {reason}")
    if (
        library.llama_model_is_recurrent(model)
        or library.llama_model_is_hybrid(model)
        or library.llama_model_has_encoder(model)
        or not library.llama_model_has_decoder(model)
    ):
        library.llama_model_free(model)
        raise InputError(
            f"{file} is not a causal language model with attention alone, the only kind that --engine llama.cpp serves"
        )
    return model


def divide_memory(library: Any, model: Any, slots: int | None, context: int | None, memory: int) -> tuple[int, int]:
    """The number of slots, and of tokens of each: up to those that the model was trained with, as far as memory allows."""
    trained = int(library.llama_model_n_ctx_train(model))
    width = _read_number(library, model, "attention.key_length")
    width = width or library.llama_model_n_embd(model) // library.llama_model_n_head(model)
    numbers = 2 * library.llama_model_n_layer(model) * library.llama_model_n_head_kv(model) * width
    tokens = int(MEMORY_SHARE * memory) // (numbers * VALUE_BYTES)
    slots = slots or max(1, min(SLOT_COUNT, tokens // min(trained, FEW_TOKENS)))
    return slots, context or max(1, min(trained, tokens // slots))


def _read_number(library: Any, model: Any, key: str) -> int | None:
    """A number from the metadata of a model, under the name of its architecture."""
    text = create_string_buffer(TEXT_BYTES)
    if library.llama_model_meta_val_str(model, b"general.architecture", text, TEXT_BYTES) < 0:
        return None
    name = text.value + b"." + key.encode()
    return int(text.value) if library.llama_model_meta_val_str(model, name, text, TEXT_BYTES) >= 0 else None
