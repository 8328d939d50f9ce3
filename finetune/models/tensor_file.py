"""Reads and writes safetensors files one tensor at a time, so that memory holds no more than that.

The library itself reads through a map of the whole file, which stays in memory, and writes only what is in memory at once.
Format: huggingface/safetensors, README.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.artifacts import fsync
from finetune.errors import InputError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
BLOCK = 2**24  # bytes that are copied at once
MAX_HEADER = 100_000_000  # bytes; the library refuses larger ones too
ALIGNMENT = 8  # of the first tensor, as the library pads the header


@dataclass(frozen=True)
class Form:
    """The name of a tensor in a file, its type in the terms of the format, its shape and its size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, name: str, dtype: torch.dtype, shape: Sequence[int]) -> Form:
        """The form of a tensor of torch."""
        return cls(name, NAMES[dtype], tuple(shape), math.prod(shape) * dtype.itemsize)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    file: Path
    form: Form
    start: int  # of its bytes in the file

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        data = np.fromfile(self.file, np.uint8, self.form.size, offset=self.start)  # bytearray would be zeroed first
        return torch.from_numpy(data).view(DTYPES[self.form.dtype]).reshape(self.form.shape)

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, block by block."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            for offset in range(0, self.form.size, BLOCK):
                yield file.read(min(BLOCK, self.form.size - offset))


def list_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name, in the order of the file, from its header alone.

    Raises:
        InputError: it is no safetensors file, it is truncated, or its header lies about it.
    """
    try:
        return _read_header(file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if isinstance(error, (OSError, ValueError)) else "its header is malformed"
        raise InputError(f"The weights in {file} are damaged: {reason}. Get the model or adapter again") from None


def _read_header(file: Path) -> dict[str, StoredTensor]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(size - 8, MAX_HEADER):
            raise ValueError(f"its header claims {length} bytes, and the file has {size}")
        header = json.loads(opened.read(length))
    header.pop("__metadata__", None)
    tensors, at = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        shape = tuple(int(count) for count in entry["shape"])
        form = Form(name, entry["dtype"], shape, end - start)
        known = DTYPES.get(form.dtype)
        if start != at or end < start or min(shape, default=0) < 0:
            raise ValueError(f"its tensors do not follow each other at {name!r}")
        if known is not None and form != Form.of(name, known, shape):
            raise ValueError(f"the shape of {name!r} does not fit its {end - start} bytes")
        tensors[name] = StoredTensor(file, form, 8 + length + start)
        at = end
    if 8 + length + at != size:
        raise ValueError(f"its tensors end at byte {8 + length + at}, and the file at {size}")
    return tensors


def write_tensors(path: Path, tensors: Sequence[tuple[Form, Iterable[bytes | memoryview]]]) -> None:
    """Write a file whose bytes are made tensor by tensor; `path` appears when it is complete and on disk."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for form, _ in tensors:
        header[form.name] = {"dtype": form.dtype, "shape": form.shape, "data_offsets": (offset, offset + form.size)}
        offset += form.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    staging = path.with_name(f"{path.name}.part")
    with staging.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, blocks in tensors:
            for block in blocks:
                file.write(block)
    assert staging.stat().st_size == 8 + len(text) + offset
    fsync(staging)
    os.replace(staging, path)


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor as the format stores them."""
    array: Any = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return memoryview(array)
