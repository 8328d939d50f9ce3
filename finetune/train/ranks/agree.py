"""What the processes of a training must agree on before they begin: inputs, library versions and where to start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.artifacts import library_versions
from finetune.errors import InputError
from finetune.train.checkpoints.checkpoint import Checkpoint, Checkpoints
from finetune.train.checkpoints.resume import find_start
from finetune.train.ranks.group import Ranks


def require_same(ranks: Ranks, lineage: Mapping[str, Any]) -> None:
    """Refuse processes with other inputs or library versions than the first, as on machines set up at different times.

    Raises:
        InputError: names the process and what differs.
    """
    fingerprints = {name: parent["fingerprint"] for name, parent in lineage["parents"].items()}
    ours = {**library_versions(), **{f"fingerprint of {name}": value for name, value in fingerprints.items()}}
    first, *others = ranks.gather(ours)
    for rank, theirs in enumerate(others, 1):
        for name in sorted(first.keys() | theirs.keys()):
            if first.get(name) != theirs.get(name):
                raise InputError(
                    f"Process {rank} of the training has {name} {theirs.get(name)}, and process 0 has {first.get(name)}. All "
                    "machines need the same libraries (pip install -c constraints.txt), and the same corpus and base model, "
                    "best on storage that all of them see"
                )


def share_start(ranks: Ranks, checkpoints: Checkpoints, *, resume: bool) -> Checkpoint | None:
    """The checkpoint that all processes resume from, chosen by the first; None to start from the beginning.

    Raises:
        InputError: this process does not see it; or what `find_start` raises.
    """
    start = find_start(checkpoints, resume=resume) if ranks.is_first else None
    name = ranks.from_first(start.path.name if start else None)
    if ranks.is_first or name is None:
        return start
    try:
        return Checkpoint.open(checkpoints.folder / name)
    except InputError as error:
        raise InputError(
            f"Process {ranks.rank} of the training cannot read the checkpoint that process 0 resumes from ({error}). Put "
            "--output-dir on storage that all machines see"
        ) from None
