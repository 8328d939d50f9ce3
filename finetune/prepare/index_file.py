"""Named number arrays in one file, in NumPy's npz layout: the same bytes every time, and safe to read from anybody."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from finetune.errors import InputError

Arrays = dict[str, NDArray[Any]]

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that zip knows: a file does not tell when it was made
MAX_BYTES = 1 << 30  # 80 million grams; a set that needs more is no test set


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write one-dimensional arrays, uncompressed: hashes do not shrink, and zlib's bytes differ between its versions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            npy.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            entry.create_system = 3
            archive.writestr(entry, member.getvalue())


def read_arrays(path: Path, kinds: Mapping[str, str], remedy: str) -> Arrays:
    """Read arrays of the wanted names and kinds ("uint64", or "uint8|uint16" for a choice).

    Raises:
        InputError: the file is missing, too large, or not what `write_arrays` makes; `remedy` says what to do.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MiB")
        with zipfile.ZipFile(path) as archive:
            return {name: _read(archive, name, kind) for name, kind in kinds.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or type(error).__name__}). {remedy}") from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        reason = str(error) if type(error) is ValueError else "it is no complete npz file of an index"
        raise InputError(f"{path} is damaged or is no index of an eval set: {reason[:200]}. {remedy}") from None


def _read(archive: zipfile.ZipFile, name: str, kind: str) -> NDArray[Any]:
    """One array; nothing is allocated for a size that a header only claims."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_BYTES:
        raise ValueError(f"the array {name} is compressed or too large")
    content = archive.read(info)
    member = io.BytesIO(content)
    try:
        if npy.read_magic(member) != (1, 0):
            raise ValueError
        shape, _, dtype = npy.read_array_header_1_0(member)
    except ValueError:
        raise ValueError(f"the header of the array {name} cannot be read") from None
    body = len(content) - member.tell()
    if len(shape) != 1 or dtype.name not in kind.split("|") or not dtype.isnative or body != shape[0] * dtype.itemsize:
        raise ValueError(f"the array {name} is not a row of {kind.replace('|', ' or ')}")
    return np.frombuffer(content, dtype, offset=member.tell())
