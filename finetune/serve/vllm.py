"""Targets handed over to vLLM: the exports to make first, and the command that serves them under the same names."""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.artifacts import Adapter, Model, read_manifest
from finetune.errors import InputError
from finetune.models.find import BaseModel, base_of
from finetune.models.open import AnyModel, open_model
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.option_fields import check
from finetune.recipe.options import ServeOptions
from finetune.recipe.vllm_rules import find_obstacles, max_rank, vllm_command
from finetune.serve.gguf_file import find_gguf
from finetune.serve.targets import ServeTarget, check_names

# Limits of slmtune's own server, with the values that mean none.
OWN_LIMITS = {"requests_per_minute": None, "concurrency": None, "deadline": None, "log_prompts": False}


@dataclass(frozen=True)
class MissingExport:
    """An adapter's export for vLLM that does not exist yet, and the base model if it was moved since the training."""

    adapter: Path
    folder: Path
    model: str | None

    @property
    def command(self) -> str:
        """What writes it."""
        words = ["slmtune", "export", str(self.adapter), "--format", "vllm", "--output-dir", str(self.folder)]
        return shlex.join([*words, *(["--model", self.model] if self.model is not None else [])])


@dataclass(frozen=True)
class Handover:
    """The exports that do not exist yet, and the command of vLLM, word by word."""

    exports: tuple[MissingExport, ...]
    command: tuple[str, ...]


def hand_over(
    targets: Sequence[ServeTarget],
    options: ServeOptions | None = None,
    *,
    has_key: bool = False,
    model: str | None = None,
) -> Handover:
    """The command with which vLLM serves the targets at the same address and under the same names.

    No weights are loaded.

    Args:
        targets: what `slmtune serve` would serve.
        options: the address, the certificate if there is one, and the origins of web pages.
        has_key: whether vLLM will find a key in VLLM_API_KEY.
        model: the base model of the adapters, if it is no longer where it was during training.

    Raises:
        InputError: vLLM cannot load an adapter, which is named with the reason and the command that merges it; the targets
            cannot be served together; other machines could reach vLLM without a key; or an option is one that only
            slmtune's own server has.
        SlmtuneError: an artifact or the base model cannot be opened.
    """
    options = options or ServeOptions()
    check(options)
    check_names([target.name for target in targets])
    if files := [target.name for target in targets if find_gguf(target.path) is not None]:
        raise InputError(
            f"{files[0]} is a GGUF file, for llama.cpp. Name the model or the adapter from which it was made"
        )
    opened = {target.name: open_model(target.path) for target in targets}
    adapters = {name: artifact for name, artifact in opened.items() if isinstance(artifact, Adapter)}
    _require_loadable(opened)
    address = _address(options, has_key=has_key)
    if not adapters:
        return Handover((), tuple(_serve_whole(opened, address)))
    base = _common_base(opened, adapters, model)
    names = [name for name in opened if name not in adapters] or [base.name]
    check_names([*names, *adapters])
    exports = {name: _export_of(adapter, model) for name, adapter in adapters.items()}
    location, revision = _location(base)
    command = vllm_command(
        location,
        revision,
        {name: folder for name, (folder, _) in exports.items()},
        max(max_rank(AdapterRecipe.model_validate(adapter.config)) for adapter in adapters.values()),
        [*(["--served-model-name", *names] if names != [location] else []), *address],
    )
    return Handover(tuple(export for _, export in exports.values() if export), tuple(command))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(options: ServeOptions, *, has_key: bool) -> list[str]:
    """The options for the address and for web pages; without them, vLLM listens on every address and answers every page."""
    for name, none in OWN_LIMITS.items():
        if getattr(options, name) != none:
            raise InputError(
                f"vLLM has nothing like --{name.replace('_', '-')}. Leave it out, or let a reverse proxy do it"
            )
    if not (is_loopback(options.host) or has_key):
        raise InputError(
            f"{options.host} can be reached from other machines, which requires a key. Add --api-key-file FILE"
        )
    certificate = {"--ssl-certfile": options.ssl_certfile, "--ssl-keyfile": options.ssl_keyfile}
    tls = [word for option, path in certificate.items() if path is not None for word in (option, str(path))]
    origins = ["--allowed-origins", json.dumps(options.cors_origins)]
    return ["--host", options.host, "--port", str(options.port), *tls, *origins]


def _serve_whole(opened: Mapping[str, AnyModel], address: Sequence[str]) -> list[str]:
    if len(opened) > 1:
        raise InputError(f"{', '.join(opened)} are different models. Start vLLM once for each")
    [(name, artifact)] = opened.items()
    location, revision = _location(artifact) if isinstance(artifact, BaseModel) else (str(artifact.path), None)
    pinned = ["--revision", revision] if revision else []
    return ["vllm", "serve", location, *pinned, "--served-model-name", name, *address]


def _require_loadable(opened: Mapping[str, AnyModel]) -> None:
    """Refuse what vLLM cannot load, with all reasons at once."""
    refusals = []
    for name, artifact in opened.items():
        if isinstance(artifact, BaseModel):
            continue
        if artifact.manifest.get("head") is not None:
            raise InputError(f"{name} is an encoder, for which there is no such command. Serve it with slmtune serve")
        if isinstance(artifact, Model):
            continue
        if obstacles := find_obstacles(AdapterRecipe.model_validate(artifact.config)):
            merge = shlex.join(["slmtune", "merge", str(artifact.path)])
            refusals.append(f"{name} must be merged ({'; '.join(obstacles)}): {merge}")
    if refusals:
        raise InputError(
            f"vLLM cannot load every adapter beside its base model. {'. '.join(refusals)}. "
            "Then start vLLM once for each merged model"
        )


def _common_base(opened: Mapping[str, AnyModel], adapters: Mapping[str, Adapter], model: str | None) -> BaseModel:
    """The one base model of all targets, after checking that their adapters have one tokenizer, too."""
    bases = [base_of(adapter, model) for adapter in adapters.values()]
    bases += [artifact for artifact in opened.values() if isinstance(artifact, BaseModel)]
    merged = any(isinstance(artifact, Model) for artifact in opened.values())
    if merged or len({base.fingerprint for base in bases}) > 1:
        raise InputError(f"{', '.join(opened)} need different base models. Start vLLM once for each")
    tokenizers = [load_tokenizer(adapter.path, bases[0]) for adapter in adapters.values()]
    first = (tokenizers[0].chat_template, tokenizers[0].get_vocab())
    if any((other.chat_template, other.get_vocab()) != first for other in tokenizers[1:]):
        raise InputError(
            f"{', '.join(adapters)} have different tokenizers or chat templates, and vLLM takes one. Start it once for each"
        )
    return bases[0]


def _export_of(adapter: Adapter, model: str | None) -> tuple[Path, MissingExport | None]:
    """The folder of an adapter's export for vLLM, and the export unless it exists."""
    beside = adapter.path.with_name(f"{adapter.path.name}-vllm")
    for folder in (beside, adapter.path.parent / "export" / "vllm"):
        manifest = read_manifest(folder) or {}
        parent = manifest.get("parents", {}).get("adapter", {})
        is_export = manifest.get("kind") == "export" and manifest["config"]["format"] == "vllm"
        if is_export and parent.get("fingerprint") == adapter.fingerprint:
            return folder, None
    return beside, MissingExport(adapter.path, beside, model)


def _location(base: BaseModel) -> tuple[str, str | None]:
    """The Hub id and the revision of a base model, or its folder."""
    return (str(base.folder), None) if base.source == "local" else (base.name, base.revision)
