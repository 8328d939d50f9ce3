"""Rendered rows, kept in the user's cache: the next run maps them into memory instead of rendering them again.

What is kept is found by a key: the SHA-256 of all that it is made from. For the rows of a corpus, that is the fingerprint of
the corpus, which covers the checksum of each of its files. Sizes and dates decide nothing: `Artifact.open` compares every file
with its checksum whenever a run starts, which takes a tenth of a second per million short rows, so a corpus that has changed
is refused or has another key. Rows also depend on the tokenizer, of which every file counts, on settings, and on the code that
renders them, which counts by its source. What a key finds was written by one run, under a temporary name until it was whole;
samples of its files are compared with those that were written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from finetune import records
from finetune.artifacts import Corpus, library_versions, sha256_of
from finetune.corpus import store
from finetune.kept import keep, kept_folder, read_kept
from finetune.models import chat_template, encoder_inputs
from finetune.scoring import label_tasks
from finetune.train import task
from finetune.train.batches import labelled, rows
from finetune.train.batches.labelled import LabelledRows
from finetune.train.batches.rows import TokenRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEWEST = 2_000  # rows; fewer are rendered within a second
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf"}

AnyRows = TypeVar("AnyRows", TokenRows, LabelledRows)


class KeptIds(Sequence[str]):
    """Ids of rows, read when asked for: their UTF-8 one after the other, and where each ends."""

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._text, self._ends = text, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, number: int) -> str: ...

    @overload
    def __getitem__(self, number: slice) -> list[str]: ...

    def __getitem__(self, number: int | slice) -> str | list[str]:
        """The id of a row, by number."""
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        end = self._ends[number]
        start = self._ends[number - 1] if number % len(self) else 0
        return self._text[start:end].tobytes().decode()


def keep_rows(
    corpus: Corpus, parts: Mapping[str, object], kind: type[AnyRows], render: Callable[[], AnyRows], *, may_keep: bool
) -> AnyRows:
    """The rows of a split as `render` gives them, or as it did for an earlier run; a small corpus is always rendered.

    A cache that cannot be read or written costs only time.

    Args:
        parts: what the rows are made from beside the corpus and the code, as JSON.
        may_keep: whether the cache may be read and written.
    """
    if not may_keep or sum(corpus.counts.values()) < FEWEST:
        return render()
    folder = _folder(corpus, parts)
    with suppress(OSError, ValueError, KeyError):
        return _read(folder, kind)
    rendered = render()
    parts = _take_apart(rendered)
    arrays = {name: part for name, part in parts.items() if isinstance(part, np.ndarray)}

    def write(staging: Path) -> dict[str, Any]:
        for name, array in arrays.items():
            np.save(staging / f"{name}.npy", array)
        return {name: part for name, part in parts.items() if name not in arrays}

    keep(folder, corpus.path, sum(array.nbytes for array in arrays.values()), write)
    return rendered


def keep_facts(corpus: Corpus, parts: Mapping[str, object], find: Callable[[], Any], *, may_keep: bool) -> Any:
    """What `find` reads from the rows of a corpus, as JSON, or read for an earlier run."""
    if not may_keep or sum(corpus.counts.values()) < FEWEST:
        return find()
    folder = _folder(corpus, parts)
    with suppress(OSError, ValueError, KeyError):
        return read_kept(folder)
    found = find()
    keep(folder, corpus.path, 0, lambda staging: found)
    return found


def describe_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, object]:
    """All that a tokenizer's output depends on: the files beside the weights, and a template that it was given."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in WEIGHTS)
    return {
        "files": {path.name: sha256_of(path) for path in files},
        "template": str(tokenizer.chat_template),
        "libraries": library_versions(("transformers", "tokenizers")),
    }


def _folder(corpus: Corpus, parts: Mapping[str, object]) -> Path:
    return kept_folder("rows", {**parts, "corpus": corpus.fingerprint, "code": _code()})


@cache
def _code() -> list[str]:
    """Checksums of the modules that read and render rows."""
    modules = (records, store, chat_template, encoder_inputs, label_tasks, task, labelled, rows)
    return [sha256_of(Path(str(module.__file__))) for module in modules]


def _take_apart(rows: TokenRows | LabelledRows) -> dict[str, Any]:
    """The fields of rows and what is calculated from all of them, by name."""
    skipped = {"ids", *(("common_prefix",) if isinstance(rows, TokenRows) and rows.are_pairs else ("prompts",))}
    names = [field.name for field in fields(rows)]
    names += [name for name, value in vars(type(rows)).items() if isinstance(value, cached_property)]
    ids = [text.encode() for text in rows.ids]
    return {name: getattr(rows, name) for name in names if name not in skipped} | {
        "id_text": np.frombuffer(b"".join(ids), np.uint8),
        "id_ends": np.cumsum([len(text) for text in ids]),
    }


def _read(folder: Path, kind: type[AnyRows]) -> AnyRows:
    parts = read_kept(folder) | {
        file.stem: np.load(file, mmap_mode="r").view(np.ndarray) for file in folder.glob("*.npy")
    }
    parts["ids"] = KeptIds(parts.pop("id_text"), parts.pop("id_ends"))
    found = kind(**{field.name: parts.pop(field.name) for field in fields(kind)})
    vars(found).update(parts)  # where cached properties keep their values
    return found
