"""The tokenizer of a base model without its weights: enough to measure text with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import OfflineError
from finetune.hub.snapshots import TOKENIZER_FILES, cached_tokenizer, download_snapshot
from finetune.models import pypi_wheel
from finetune.models.find import BaseModel, hub_id_of
from finetune.models.load import load_tokenizer
from finetune.models.presets import PRESETS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def find_tokenizer(model: str, *, fetch: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a preset, a Hub id or a folder, with the chat template that training would use.

    What is on this machine is used without asking the network. With `fetch` the Hub is asked for the tokenizer's files
    otherwise; weights are never fetched.

    Raises:
        UnknownNameError: neither a preset, nor a folder, nor a repository on the Hub.
        OfflineError: not on this machine, and the Hub may not or cannot be asked.
        HubError: the Hub refused.
        InputError: the folder holds no tokenizer.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _load(folder.resolve().name, folder)
    hub_id = hub_id_of(model)
    found = cached_tokenizer(hub_id) or (pypi_wheel.cached_folder() if hub_id == pypi_wheel.HUB_ID else None)
    if found is None and not fetch:
        raise OfflineError(f"The tokenizer of {model} is not on this machine. Fetch it with: --model {model}")
    return _load(hub_id, found or download_snapshot(hub_id, None, TOKENIZER_FILES, known=PRESETS))


def _load(name: str, folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder, BaseModel(name, folder, "local", fingerprint=""))  # only its name is looked at
