"""Opens what a path or a name stands for: an adapter, a merged model or a base model; nothing is loaded into memory."""

from __future__ import annotations

from pathlib import Path

from finetune.artifacts import Adapter, Model, open_any, read_manifest
from finetune.models.find import BaseModel, find_base, is_name

AnyModel = Adapter | Model | BaseModel


def open_model(place: Path | str, *, command: str | None = None) -> AnyModel:
    """The artifact in a folder, or the base model of a preset, a Hub id or a plain folder.

    Raises:
        SlmtuneError: it is none of these, or it is damaged; names `command`, which makes an adapter.
    """
    folder = Path(place)
    if read_manifest(folder) is not None:
        opened = open_any(folder, (Adapter, Model))
        assert isinstance(opened, Adapter | Model)
        return opened
    if (isinstance(place, str) and is_name(place)) or (folder / "config.json").is_file():
        return find_base(str(place))
    return Adapter.open(folder, command=command)  # or its error about what is there instead
