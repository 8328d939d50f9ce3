"""Reads each document once into the work folder, and counts the lines that the documents of a source repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from finetune.artifacts import write_aside
from finetune.errors import InputError, Unusable
from finetune.prepare.clean.boilerplate import LineCounter
from finetune.prepare.documents.document_file import load_document, save_document
from finetune.prepare.documents.readers import read_document
from finetune.prepare.drops import Drops
from finetune.prepare.engines.engine import Engine
from finetune.prepare.formats.containers import inner_name
from finetune.prepare.formats.files import MAX_LINE, DataFile, check_content, open_file
from finetune.prepare.rows.part import Part

MAX_DOCUMENT = 2 * MAX_LINE  # bytes


def extract(parts: Sequence[Part], folder: Path, drops: Drops, engine: Engine) -> Iterator[tuple[int, Path | None]]:
    """Read the documents among the parts; yields the number of each with its file, or None if it cannot be used.

    Raises:
        RecordError: a document cannot be used, and `--on-error` is `fail`.
    """
    numbers = [number for number, part in enumerate(parts) if part.shape is None]
    items = [(parts[number].file, folder / f"document-{number:06d}.json") for number in numbers]
    problems = engine.map(_extract_one, items)
    for number, (file, path), problem in zip(numbers, items, problems, strict=True):
        if problem is not None:
            drops.refuse(parts[number].source, file, problem)
        yield number, path if problem is None else None


def repeated_lines(parts: Sequence[Part], files: Mapping[int, Path], drops: Drops) -> dict[str, frozenset[int]]:
    """The lines that the documents of each source share; notes the encodings of the documents."""
    counters: dict[str, LineCounter] = {}
    for number, path in files.items():
        document = load_document(path)
        drops.note_encoding(parts[number].source, document.encoding)
        counters.setdefault(parts[number].source.id, LineCounter()).add(document)
    return {source: counter.repeated() for source, counter in counters.items()}


def _extract_one(item: tuple[DataFile, Path]) -> Unusable | None:
    file, path = item
    if path.is_file():
        return None  # extracted by an interrupted run
    try:
        with open_file(file) as raw:
            data = raw.read(MAX_DOCUMENT + 1)
        if len(data) > MAX_DOCUMENT:
            return Unusable("too_long", f"the document is larger than {MAX_DOCUMENT // 2**20} MiB. Split it")
        check_content(data[:100], file.shown)
        document = read_document(data, inner_name(file.path, file.member), file.shown, file.encoding)
    except Unusable as error:
        return error
    except InputError as error:
        return Unusable("unreadable", str(error).removeprefix(f"{file.shown}: "))
    with write_aside(path) as staging:
        save_document(document, staging)
    return None
