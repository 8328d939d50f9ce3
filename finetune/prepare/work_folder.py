"""The work folder beside the corpus: what finished stages left, so that a run which was interrupted goes on from there.

It holds text and is therefore only for its owner; it is removed when the corpus is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from finetune import __version__
from finetune.artifacts import make_folder
from finetune.errors import SlmtuneError
from finetune.prepare.decontaminate.eval_index import EvalIndex
from finetune.prepare.request import PrepareRequest
from finetune.prepare.sources.source import Source

KEY = "key"


@contextmanager
def open_work_folder(request: PrepareRequest, sources: Sequence[Source], evals: EvalIndex | None) -> Iterator[Path]:
    """The work folder of this request; what another request or other files left there is removed.

    It stays when the run is interrupted. After an error that slmtune reports it is removed: the next try is another
    request, or reads other files.

    Raises:
        InputError: it cannot be made.
    """
    out = Path(os.path.abspath(request.output_dir))
    folder = out.parent / f".{out.name}.work"
    key = _key(request, sources, evals)
    if not (folder / KEY).is_file() or (folder / KEY).read_text("utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        folder.chmod(0o700)
        (folder / KEY).write_text(key, "utf-8")
    for unfinished in folder.glob("*.tmp"):
        unfinished.unlink()
    try:
        yield folder
    except SlmtuneError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _key(request: PrepareRequest, sources: Sequence[Source], evals: EvalIndex | None) -> str:
    """A digest of all that decides what the stages make; files count by name, size and time of change."""
    options = {name: value for name, value in asdict(request).items() if name not in {"workers", "overwrite"}}
    files = [
        [source.id, source.revision, file.name, status.st_size, status.st_mtime_ns]
        for source in sources
        for file in source.files
        for status in [file.path.stat()]
    ]
    eval_digest = hashlib.sha256(evals.keys.tobytes()).hexdigest() if evals is not None else None
    text = json.dumps([__version__, options, files, eval_digest], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
