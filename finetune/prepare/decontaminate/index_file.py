"""Named arrays of numbers in one npz file: reproducible bytes, and safe to read from untrusted sources."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from finetune.errors import InputError

Arrays = dict[str, NDArray[Any]]

# The only headers that are read: those of rows of unsigned numbers.
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<kind>[<|]u[1248])', 'fortran_order': False, "
    rb"'shape': \((?P<length>\d{1,12}),\), \} *\n",
    re.DOTALL,
)
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
    """Read arrays with the given names and kinds ("uint64", or "uint8|uint16" for a choice).

    Raises:
        InputError: the file is missing, too large, or not written by `write_arrays`; `remedy` says what to do.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _BadFile(f"it has more than {MAX_BYTES >> 20} MiB")
        with zipfile.ZipFile(path) as archive:
            return {name: _read(archive, name, kind) for name, kind in kinds.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or type(error).__name__}). {remedy}") from None
    except Exception as error:  # zipfile raises whatever it stumbles over: struct.error, RuntimeError, KeyError …
        reason = str(error) if isinstance(error, _BadFile) else "it is not a complete npz file of an index"
        raise InputError(f"{path} is damaged or is not the index of an eval set: {reason}. {remedy}") from None


class _BadFile(Exception):
    """The reason why a file cannot be read."""


def _read(archive: zipfile.ZipFile, name: str, kind: str) -> NDArray[Any]:
    """One array; nothing is allocated for a size that a header only claims, and no header is evaluated."""
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > MAX_BYTES:
        raise _BadFile(f"the array {name} is compressed or too large")
    content = archive.read(info)
    header = HEADER.match(content)
    dtype = np.dtype(header["kind"].decode()) if header else np.dtype(np.void)
    if (
        not header
        or dtype.name not in kind.split("|")
        or len(content) - header.end() != int(header["length"]) * dtype.itemsize
    ):
        raise _BadFile(f"the array {name} is not a row of {kind.replace('|', ' or ')}")
    return np.frombuffer(content, dtype, offset=header.end())
