"""What this machine has trained adapters on: hashes of their training rows, without any text, in the user's cache.

An evaluation looks them up to tell rows that an adapter has seen. They never become part of an artifact, because a hash tells
whoever has a row whether it was trained on; only the user can read the files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.artifacts import Corpus, read_manifest, write_aside
from finetune.corpus.store import iter_split
from finetune.machine import cache_folder
from finetune.prepare.clean.text import clean_text
from finetune.prepare.dedup.keys import answer_digest, question_digest
from finetune.prepare.rows.change import change_turns
from finetune.records import Example
from finetune.scrub import tag_identifiers
from finetune.train.inputs import Inputs

Hashes = NDArray[np.uint64]


def hash_rows(rows: Iterable[Example]) -> Hashes:
    """A 64-bit hash of each row: of its question and answer, without instructions, case and repeated white space.

    Rows are hashed in clean text without personal data, however they were prepared.
    """
    return np.fromiter((_hash_row(row) for row in rows), np.uint64)


def _hash_row(row: Example) -> int:
    row = change_turns(row, _plain)
    question = question_digest(row)
    return int.from_bytes(hashlib.sha256(question + answer_digest(row, question)).digest()[:8])


def _plain(text: str) -> str:
    return tag_identifiers(clean_text(text))


def remember_training(out: Path, inputs: Inputs) -> None:
    """Note on this machine what an adapter was trained on, also before, if it started from another adapter.

    A cache that cannot be written costs only the comparison.
    """
    manifest = read_manifest(out)
    if manifest is None:
        return
    with suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        _folder().chmod(0o700)
        sets: dict[str, Callable[[], Iterable[Example]]] = {
            inputs.corpus.fingerprint: lambda: iter_split(inputs.corpus, "train")
        }
        if (replayed := inputs.replayed) is not None:
            sets[replayed.fingerprint] = lambda: replayed.rows
        for name, read_rows in sets.items():
            _remember(name, read_rows)
        earlier = _lineage(inputs.init_adapter["fingerprint"]) if inputs.init_adapter else []
        if earlier is None:
            return
        with write_aside(_folder() / f"{manifest['fingerprint']}.json") as staging:
            staging.write_text(json.dumps(sorted({*sets, *earlier})), "utf-8")


def find_trained_rows(manifest: Mapping[str, Any], corpus: Corpus | None) -> Hashes | None:
    """The sorted hashes of all rows that an adapter was trained on; None if this machine does not know them.

    `corpus` is asked for its own training rows if it is the adapter's.
    """
    parents = manifest.get("parents", {})
    sets = _lineage(manifest["fingerprint"])
    if sets is None and not {"init_adapter", "replay"} & parents.keys():
        sets = [parents.get("corpus", {}).get("fingerprint", "")]
    if sets is None:
        return None
    found = [_read(name, corpus) for name in sets]
    known = [hashes for hashes in found if hashes is not None]
    return np.unique(np.concatenate(known)) if known and len(known) == len(found) else None


def _read(name: str, corpus: Corpus | None) -> Hashes | None:
    """The hashes of the training rows of a corpus, by its fingerprint."""
    with suppress(OSError, ValueError):
        hashes: Hashes = np.load(_folder() / f"{name}.npy")
        return hashes
    return np.unique(hash_rows(iter_split(corpus, "train"))) if corpus and corpus.fingerprint == name else None


def _remember(name: str, read_rows: Callable[[], Iterable[Example]]) -> None:
    path = _folder() / f"{name}.npy"
    if not path.is_file():
        with write_aside(path) as staging, staging.open("wb") as file:
            np.save(file, np.unique(hash_rows(read_rows())))


def _lineage(adapter: str) -> list[str] | None:
    """The fingerprints of the sets of rows that an adapter was trained on; None if it was trained elsewhere."""
    try:
        sets: list[str] = json.loads((_folder() / f"{adapter}.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return sets


def _folder() -> Path:
    return cache_folder() / "trained-rows"
