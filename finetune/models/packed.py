"""Weights in 4 bits, kept in the user's cache once they have been quantised on a CPU, and mapped into memory from then on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from finetune.artifacts import library_versions, sampled_fingerprint, sha256_of
from finetune.kept import keep, kept_folder, read_kept
from finetune.models.find import weight_files
from finetune.recipe.adapter import Quantization

LEAST_BYTES = 64 * 2**20  # of a model's files; smaller ones are quantised within a second
LIBRARIES = ("torch", "transformers", "bitsandbytes", "safetensors")


def load_packed(
    folder: Path, quantization: Quantization, dtype: torch.dtype, quantize: Callable[[], PreTrainedModel]
) -> PreTrainedModel:
    """The causal language model in a folder as `quantize` loads it on a CPU, or loaded it earlier: bit by bit the same.

    It is found by the samples of its weights that all artifacts are known by, and also by the size and the time of the
    last change of each of their files, because samples may miss a change of a few layers; by its other settings in full.
    """
    files = weight_files(folder)
    if sum(file.stat().st_size for file in files) < LEAST_BYTES:
        return quantize()
    place = kept_folder(
        "packed",
        {
            "weights": sampled_fingerprint(files),
            "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files],
            "settings": {file.name: sha256_of(file) for file in sorted(folder.glob("*config.json"))},
            "quantization": quantization,
            "dtype": str(dtype),
            "libraries": library_versions(LIBRARIES),
            "kernels": torch.backends.cpu.get_cpu_capability(),
        },
    )
    with suppress(OSError, ValueError, KeyError, SafetensorError):
        read_kept(place)
        options: dict[str, Any] = {"dtype": dtype, "device_map": {"": "cpu"}, "use_safetensors": True}
        packed: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            place, local_files_only=True, trust_remote_code=False, **options
        )
        packed.name_or_path = packed.config.name_or_path = str(folder)
        return packed
    model = quantize()
    size = sum(tensor.nbytes for tensor in model.state_dict().values())

    def write(staging: Path) -> None:
        try:
            model.save_pretrained(staging, max_shard_size="100GB")
        except (SafetensorError, RuntimeError, ValueError) as error:  # a full disk, or a layer that cannot be stored
            raise OSError(str(error)) from None

    keep(place, folder, size, write)
    return model
