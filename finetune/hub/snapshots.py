"""Downloads model repositories of the Hub as folders in its cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from finetune.hub.settings import is_offline

UNWANTED = ("onnx/*", "*/*.safetensors", "openvino/*", "runs/*")
INSTEAD = "Connect to the network once, or pass a local folder with --model"

log = logging.getLogger(__name__)


class Need(Enum):
    """The part of a model that is needed, as files to download: no pickles, no code, no second copy of the weights."""

    CONFIGURATION = ("config.json",)
    TOKENIZER = ("*.json", "*.jinja", "*.model", "*.txt")
    WEIGHTS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")


def cached_snapshot(hub_id: str, revision: str | None, need: Need) -> Path | None:
    """The cached folder of a repository, without network access; None if it lacks a file that is needed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
    return folder if _has(folder, need) else None


def _has(folder: Path, need: Need) -> bool:
    """Whether all files are there: an interrupted download leaves a partial folder."""
    has_config = (folder / "config.json").is_file()
    has_tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt"))
    if need is not Need.WEIGHTS:
        return has_config if need is Need.CONFIGURATION else has_tokenizer
    index = folder / "model.safetensors.index.json"
    shards = {"model.safetensors"}
    if index.is_file():
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    return has_config and has_tokenizer and all((folder / shard).is_file() for shard in shards)


def download_snapshot(hub_id: str, revision: str | None, need: Need, *, known: Iterable[str] = ()) -> Path:
    """Download the needed files of a repository.

    Args:
        known: model names from which to suggest the closest if the Hub has no such repository.

    Raises:
        UnknownNameError: no such repository or revision, or a private one.
        OfflineError: the network is forbidden, or the Hub cannot be reached.
        HubError: the Hub refused the request.
    """
    from huggingface_hub import snapshot_download

    from finetune.hub.client import explain_errors, not_cached

    if is_offline():  # huggingface_hub would accept an incomplete snapshot
        raise not_cached(hub_id, INSTEAD)
    log.info("Downloading the %s of %s from the Hub.", need.name.lower(), hub_id)
    with explain_errors(hub_id, what="model", known=known, instead=INSTEAD):
        return Path(
            snapshot_download(
                hub_id, revision=revision, allow_patterns=list(need.value), ignore_patterns=list(UNWANTED)
            )
        )
