"""Compares stored 8-bit weights with those that they were rounded from, one tensor at a time."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from finetune.errors import CheckFailedError
from finetune.models.find import weight_files
from finetune.models.tensor_file import list_tensors

SCALE = "_scale"  # after the name of the weight
# Half a step of E4M3 (3 bits of mantissa, smallest exponent -6), relative to a number and, near zero, to the scale of its row
# (Micikevicius et al. 2022, arXiv 2209.05433); a tenth more, because scales and quotients are rounded, too.
RELATIVE, ABSOLUTE, TOLERANCE = 2**-4, 2**-10, 1.1


def require_rounded(folder: Path, out: Path) -> None:
    """Refuse a stored weight that is not the one in `folder`, rounded.

    Raises:
        CheckFailedError: names the weight.
    """
    exact, stored = _locate(folder), _locate(out)
    for key in stored:
        if not key.endswith(SCALE):
            continue
        name = key.removesuffix(SCALE)
        scale, weight = _read(stored, key), _read(exact, name)
        error = (_read(stored, name) * scale - weight).abs()
        if not (error <= TOLERANCE * (RELATIVE * weight.abs() + ABSOLUTE * scale)).all():
            raise CheckFailedError(
                f"{name} is not the weight of the model, rounded to 8 bits. Nothing was written. Merge the adapter "
                "(slmtune merge) and serve the merged model unquantised"
            )


def _locate(folder: Path) -> dict[str, Path]:
    return {name: file for file in weight_files(folder) for name in list_tensors(file)}


def _read(files: dict[str, Path], name: str) -> torch.Tensor:
    with safe_open(files[name], framework="pt") as tensors:
        tensor: torch.Tensor = tensors.get_tensor(name)
    return tensor.float()
