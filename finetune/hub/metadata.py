"""The texts in a file of weights: everything in it that is not a number."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.errors import InputError

WEIGHTS = {".safetensors", ".gguf", ".onnx", ".onnx_data"}  # the last has nothing but numbers
# Fragments that may look like anything: the words of a tokenizer, and what the nodes of a graph are called.
GGUF_NAMES = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"}
ONNX_NAMES = {"name", "input", "output"}


def read_texts(path: Path, *, names: bool) -> Iterator[str]:
    """The texts in a file of weights, with or without the names of tokens and nodes.

    Raises:
        ValueError: the file is damaged.
        InputError: the library that reads it is missing; names what to install.
    """
    if path.suffix == ".safetensors":
        yield from _safetensors_texts(path)
    elif path.suffix == ".gguf":
        yield from _gguf_texts(path, names=names)
    elif path.suffix == ".onnx":
        yield from _onnx_texts(path, names=names)


def _safetensors_texts(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for entry in header.get("__metadata__", {}).items():
        yield from map(str, entry)


def _gguf_texts(path: Path, *, names: bool) -> Iterator[str]:
    from gguf import GGUFReader, GGUFValueType

    try:
        fields = GGUFReader(path).fields
    except (IndexError, KeyError) as error:
        raise ValueError(f"{path} is damaged") from error
    for name, field in fields.items():
        yield name
        if GGUFValueType.STRING in field.types and (names or name not in GGUF_NAMES):
            content = field.contents()
            yield from [content] if isinstance(content, str) else content


def _onnx_texts(path: Path, *, names: bool) -> Iterator[str]:
    if importlib.util.find_spec("onnx") is None:
        raise InputError(f"{path.name} can only be checked with onnx. Install it with: pip install 'slmtune[onnx]'")
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, which onnx does not export
        raise ValueError(f"{path} is damaged") from error
    yield from _message_texts(model, names=names)


def _message_texts(message: Any, *, names: bool) -> Iterator[str]:
    """The texts in a protobuf message and in those within it, without the values of tensors."""
    for field, value in message.ListFields():
        is_text = field.type in (field.TYPE_STRING, field.TYPE_BYTES) and field.name != "raw_data"
        values = value if field.is_repeated else [value]
        if field.type == field.TYPE_MESSAGE:
            for each in values:
                yield from _message_texts(each, names=names)
        elif is_text and (names or field.name not in ONNX_NAMES):
            yield from (each if isinstance(each, str) else each.decode("utf-8", "replace") for each in values)
