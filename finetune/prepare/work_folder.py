"""The work folder next to the corpus: the results of finished stages, from which an interrupted run continues.

It contains text, so only its owner can read it; it is removed when the corpus is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from finetune import __version__
from finetune.artifacts import make_folder
from finetune.errors import ClusterError, SlmtuneError, StorageError
from finetune.prepare.decontaminate.eval_index import EvalIndex
from finetune.prepare.inputs import Inputs
from finetune.scrub import fingerprint_tagger

KEY = "key"
UNRELATED = {"workers", "engine", "ray_address", "overwrite"}  # options that affect no row


@contextmanager
def open_work_folder(inputs: Inputs, evals: EvalIndex | None) -> Iterator[Path]:
    """The work folder of this request; leftovers of a different request or of changed files are removed.

    It is kept when the run is interrupted, or a cluster or a bucket failed. After another error that slmtune reports it is
    removed: the next attempt will have a different request or different files.

    Raises:
        InputError: it cannot be created.
    """
    out = Path(os.path.abspath(inputs.request.folder))
    folder = out.parent / f".{out.name}.work"
    key = _key(inputs, evals)
    if not (folder / KEY).is_file() or (folder / KEY).read_text("utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        folder.chmod(0o700)
        (folder / KEY).write_text(key, "utf-8")
    for unfinished in folder.glob("*.tmp"):
        unfinished.unlink()
    try:
        yield folder
    except SlmtuneError as error:
        if not (isinstance(error, ClusterError | StorageError) and any(folder.glob("rows-*"))):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _key(inputs: Inputs, evals: EvalIndex | None) -> str:
    """A digest of everything that affects the results of the stages.

    Files count by name, size and, without a revision of their source, modification time: downloads get a new one.
    """
    options = {name: value for name, value in asdict(inputs.request).items() if name not in UNRELATED}
    files = [
        [source.id, source.revision, file.name, status.st_size, None if source.revision else status.st_mtime_ns]
        for source in inputs.all_sources
        for file in source.files
        for status in [file.path.stat()]
    ]
    eval_digest = hashlib.sha256(evals.keys.tobytes()).hexdigest() if evals is not None else None
    rules = asdict(inputs.scrubber.rules) if inputs.scrubber else {}
    tagger = fingerprint_tagger(rules["tagger"]) if rules.get("tagger") else None
    text = json.dumps([__version__, options, files, eval_digest, rules, tagger], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    """A set has no order that two processes share."""
    return sorted(value) if isinstance(value, frozenset) else str(value)
