"""Decides whether a run may resume from earlier checkpoints: only with the same data, base model and settings."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune.artifacts import Adapter, Corpus, library_versions
from finetune.errors import InputError
from finetune.models.find import BaseModel
from finetune.models.heads import Head
from finetune.recipe import AdapterRecipe
from finetune.train.checkpoints.checkpoint import DIVISION, Checkpoint, Checkpoints, list_checkpoints, step_of

log = logging.getLogger(__name__)

# Settings that do not affect the weights; the base model is compared by its weights, wherever they are. Those of ROUNDING
# affect only the last bits, as long as the rows per optimizer step are the same. All others count.
FREE = {
    "model", "revision", "logging_steps", "save_steps", "save_total_limit", "max_truncated", "report_to",
}  # fmt: skip
EVALUATION = {
    "eval_steps",
    "metric_for_best_model",
}  # free unless evaluations decide when to stop or which step to keep
ROUNDING = (*DIVISION, "gradient_checkpointing")
SCHEDULE = {"max_steps", "num_train_epochs"}
Lineage = Mapping[str, Any]


def lineage_of(
    recipe: AdapterRecipe,
    base: BaseModel,
    corpus: Corpus,
    head: Head | None = None,
    init_adapter: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The inputs of a run, as recorded in its manifests."""
    described = {} if head is None else {"head": head.describe()}
    first = init_adapter or {}
    return described | {
        "config": recipe.model_dump(mode="json") | {"model": base.name, "init_adapter": first.get("name")},
        "parents": ({"init_adapter": dict(first)} if first else {})
        | {
            "base_model": base.describe(),
            "corpus": {
                "fingerprint": corpus.fingerprint,
                "domain": corpus.manifest.get("domain"),
                "sources": corpus.manifest.get("sources", []),
                "counts": corpus.counts,
            },
        },
    }


def complete_lineage(lineage: Lineage, rows_fingerprint: str, processes: int) -> dict[str, Any]:
    """The lineage, extended by the rendered rows and the machine that they are trained on."""
    import torch  # imported late: most errors come sooner

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        **lineage,
        "parents": lineage["parents"] | {"rows": {"fingerprint": rows_fingerprint}},
        "machine": {"device": device, "threads": torch.get_num_threads(), "processes": processes},
    }


def find_finished(out: Path, lineage: Lineage) -> Adapter | None:
    """The adapter at `out`, if it is the one that this run would produce."""
    try:
        adapter = Adapter.open(out)
    except InputError:
        return None
    return None if any(_changes(adapter.manifest, lineage)) else adapter


def refuse_unfinished(folder: Path, command: str) -> None:
    """Refuse to start from the beginning if there are checkpoints of an unfinished run.

    Raises:
        InputError: there are checkpoints; names the newest step.
    """
    if paths := list_checkpoints(folder):
        raise InputError(
            f"There is an unfinished run at step {step_of(paths[0])} in {folder}. Resume it with: {command}; or start "
            "again with --overwrite, which deletes it"
        )


def find_start(checkpoints: Checkpoints, *, resume: bool) -> Checkpoint | None:
    """The checkpoint to resume from, or None to start from the beginning, after removing what an earlier run left.

    Raises:
        InputError: all checkpoints are damaged, or the data, the base model or the settings have changed.
    """
    checkpoints.remove_leftovers()
    if not resume:
        checkpoints.drop_all_but(0)
        return None
    checkpoint = checkpoints.newest()
    if checkpoint is None:
        log.warning("There is no checkpoint in %s: training starts from the beginning.", checkpoints.folder)
        return None
    changes = list(_changes(checkpoint.manifest, checkpoints.lineage))
    if changes:
        raise InputError(
            f"The run in {checkpoints.folder} cannot be resumed: {'; '.join(changes)}. Use the original inputs, or start "
            "again with --overwrite and without --resume"
        )
    for name, before, now in _machine_changes(checkpoint.manifest, checkpoints.lineage):
        log.warning("%s has changed from %s to %s: the result may differ in the last bits.", name, before, now)
    log.info("Resuming from %s.", checkpoint.path)
    return checkpoint


def _changes(before: Lineage, now: Lineage) -> Iterator[str]:
    """The changes that affect the result."""
    old, new = before["config"], now["config"]
    free = FREE | (set() if new["load_best_model_at_end"] or new["patience"] else EVALUATION)
    for key in sorted((set(old) | set(new)) - free - set(ROUNDING)):
        if old.get(key) != new.get(key):
            hint = " (the learning rate follows the planned length of the run)" if key in SCHEDULE else ""
            yield f"{key} was {old.get(key)} and is now {new.get(key)}{hint}"
    batches = [math.prod(int(config[name]) for name in DIVISION) for config in (old, new)]
    if batches[0] != batches[1]:
        yield f"an optimizer step had {batches[0]} rows and now has {batches[1]}"
    parts = {
        "base_model": "the base model's weights",
        "corpus": "the corpus",
        "replay": "the replayed rows",
        "rows": "the rendered rows",
        "init_adapter": "the adapter to start from",
    }
    for key, name in parts.items():
        ours, theirs = (manifest["parents"].get(key) for manifest in (now, before))
        if ours and theirs and ours["fingerprint"] != theirs["fingerprint"]:
            hint = " (another tokenizer or chat template)" if key == "rows" else ""
            yield f"the fingerprint of {name} was {theirs['fingerprint'][:12]} and is now {ours['fingerprint'][:12]}{hint}"
    configs = [manifest["parents"]["base_model"].get("config_fingerprint") for manifest in (before, now)]
    if None not in configs and configs[0] != configs[1]:
        yield "the base model's config.json has changed, so it computes something else"
    devices = [manifest.get("machine", {}).get("device") for manifest in (before, now)]
    if None not in devices and (devices[0] == "cpu") != (devices[1] == "cpu"):
        yield f"it ran on {devices[0]} and would now run on {devices[1]}, with a different optimizer"


def _machine_changes(before: Lineage, now: Lineage) -> Iterator[tuple[str, object, object]]:
    """The changes that may alter the order of floating-point sums."""
    old = before["config"] | before["libraries"] | before["machine"]
    new = now["config"] | library_versions() | now["machine"]
    libraries = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes")
    old = {"processes": 1} | old  # before there could be several
    for name in (*libraries, "device", "threads", "processes", *ROUNDING):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)
