"""What --vs names: an adapter, a model, a GGUF file or a server; all are opened and checked before any weights are loaded."""

from __future__ import annotations

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.artifacts import Adapter, Model, sampled_fingerprint
from finetune.errors import InputError
from finetune.evaluate.contestants.chat_server import ChatServer, find_server, is_loopback
from finetune.evaluate.contestants.contestant import ADAPTER, BASE, FEW_SHOT
from finetune.evaluate.request import EvalRequest
from finetune.models.find import BaseModel, is_name
from finetune.models.heads import Head
from finetune.models.kind import find_kind
from finetune.models.open import AnyModel, open_model
from finetune.models.presets import list_presets

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@ -]{0,127}")
RESERVED = (BASE, FEW_SHOT, ADAPTER)
FORMS = "the folder of an adapter or a model, the name of a base model, a GGUF file, or the URL of a server"


@dataclass(frozen=True)
class LocalRival:
    """An adapter, a merged model or a base model on this machine."""

    name: str
    model: AnyModel

    @property
    def identity(self) -> str:
        """The fingerprint of what decides its answers."""
        return self.model.fingerprint

    @property
    def head(self) -> Head | None:
        """The head of an encoder; None if it is a causal language model."""
        return None if isinstance(self.model, BaseModel) else Head.of_manifest(self.model.manifest)


@dataclass(frozen=True)
class GgufRival:
    """A model in a GGUF file, computed by llama.cpp."""

    name: str
    path: Path

    @property
    def identity(self) -> str:
        """A hash of parts of the file."""
        return sampled_fingerprint([self.path])


@dataclass(frozen=True)
class ServerRival:
    """A model behind a URL."""

    name: str
    server: ChatServer

    @property
    def identity(self) -> str:
        """The address and the model; whether the server still has the same weights under that name is not known."""
        return f"{self.server.url} {self.server.model}"


Rival = LocalRival | GgufRival | ServerRival


def open_rivals(request: EvalRequest) -> list[Rival]:
    """The contestants that --vs names, in the order given.

    Raises:
        InputError: a value is nothing that can be evaluated, or two contestants would have the same name.
    """
    rivals = [_open(text, request) for text in request.vs]
    _check_names([rival.name for rival in rivals])
    return rivals


def _open(text: str, request: EvalRequest) -> Rival:
    given, place = split_name(text)
    if place.startswith(("http://", "https://")):
        server = find_server(place, read_key(request.vs_key_file, place))
        return ServerRival(given or f"{server.host}/{server.model}", server)
    folder = Path(place).expanduser()
    if folder.suffix == ".gguf" and not folder.is_dir():
        require_llama_cpp(folder)
        return GgufRival(given or folder.stem, folder)
    if not folder.is_dir() and not is_name(place):
        raise InputError(f"There is nothing at {place} to evaluate (--vs). Give {FORMS}")
    model = open_model(folder if folder.is_dir() else place)
    if isinstance(model, BaseModel) and find_kind(model.folder) == "encoder":
        raise InputError(
            f"{model.name} (--vs) is an encoder without a trained head, so it has no answers. Give an adapter of it, or a "
            f"causal language model: {list_presets('causal')}"
        )
    return LocalRival(given or (_name_folder(folder) if folder.is_dir() else place), model)


def split_name(text: str) -> tuple[str | None, str]:
    """The name and the place in NAME=PLACE; a place that exists has no name, whatever it is called."""
    name, separator, place = text.partition("=")
    if not separator or not NAME.fullmatch(name) or "/" in name or Path(text).expanduser().exists():
        return None, text
    return name.strip(), place


def require_llama_cpp(path: Path) -> None:
    """Refuse a GGUF file that is not there, or that nothing here can compute.

    Raises:
        InputError: names the file, or the command that installs what is missing.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path} (--vs). Give {FORMS}")
    if importlib.util.find_spec("cyllama") is None:
        raise InputError(
            f"{path.name} (--vs) is a GGUF file, which needs cyllama. Install it with: pip install 'slmtune[gguf]'"
        )


def read_key(path: str | None, url: str) -> str | None:
    """The key in a file or else in OPENAI_API_KEY, which is never sent unencrypted to another machine."""
    if path is None:
        return (os.environ.get("OPENAI_API_KEY") or None) if url.startswith("https://") or is_loopback(url) else None
    try:
        key = Path(path).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it has letters that no key has"
        raise InputError(
            f"The key in {path} cannot be read ({reason}). Write it to that file (--vs-key-file)"
        ) from None
    if not key or not key.isprintable() or " " in key:
        raise InputError(f"{path} (--vs-key-file) must contain one key on one line, and nothing else")
    return key


def _name_folder(folder: Path) -> str:
    """The name of a folder; those of a workspace, which every domain has, with that of the workspace."""
    path = folder.resolve()
    return f"{path.parent.name}/{path.name}" if path.name in {Adapter.kind, Model.kind, *RESERVED} else path.name


def _check_names(names: Sequence[str]) -> None:
    counts = Counter([*RESERVED, *names])
    for name in names:
        if not NAME.fullmatch(name):
            raise InputError(
                f"{name!r} (--vs) cannot be the name of a contestant. Use at most 128 letters, digits, spaces and . _ : / @ -"
            )
        if counts[name] > 1:
            raise InputError(f"Two contestants would be called {name!r}. Give this one another name: --vs NAME=…")
