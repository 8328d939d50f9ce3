"""Model repositories of the Hub, as folders in its cache."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

from finetune.hub.settings import is_offline

UNWANTED = ("onnx/*", "*/*.safetensors", "openvino/*", "runs/*")
INSTEAD = "Connect once, or give --model a local folder"

log = logging.getLogger(__name__)


class Need(Enum):
    """What of a model is needed, as the files to fetch: no pickle, no code, no second copy of the weights."""

    CONFIG = ("config.json",)
    TOKENIZER = ("*.json", "*.jinja", "*.model", "*.txt")
    WEIGHTS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")


def cached_snapshot(hub_id: str, revision: str | None, need: Need) -> Path | None:
    """The cached folder of a repository, without asking the network; None where it lacks something that is needed."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, FileNotFoundError):
        return None
    return folder if _has(folder, need) else None


def _has(folder: Path, need: Need) -> bool:
    """Whether the files are there: an interrupted download leaves a partial folder."""
    has_config = (folder / "config.json").is_file()
    has_tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt"))
    if need is not Need.WEIGHTS:
        return has_config if need is Need.CONFIG else has_tokenizer
    index = folder / "model.safetensors.index.json"
    shards = {"model.safetensors"}
    if index.is_file():
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    return has_config and has_tokenizer and all((folder / shard).is_file() for shard in shards)


def download_snapshot(hub_id: str, revision: str | None, need: Need, *, known: Iterable[str] = ()) -> Path:
    """Fetch what is needed of a repository.

    Args:
        known: names of models, of which the nearest is suggested where the Hub has no such repository.

    Raises:
        UnknownNameError: no such repository or revision, or a private one.
        OfflineError: the network is forbidden or out of reach.
        HubError: the Hub refused.
    """
    from huggingface_hub import snapshot_download

    from finetune.hub.client import explain_errors, not_cached

    if is_offline():  # huggingface_hub would take a part of it for the whole
        raise not_cached(hub_id, INSTEAD)
    log.info("Downloading %s from the Hub.", hub_id)
    with explain_errors(hub_id, what="model", known=known, instead=INSTEAD):
        return Path(
            snapshot_download(
                hub_id, revision=revision, allow_patterns=list(need.value), ignore_patterns=list(UNWANTED)
            )
        )
