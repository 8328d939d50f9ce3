"""Targets handed over to vLLM: the exports to make first, and the command that serves them under the same names."""

from __future__ import annotations

import ipaddress
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
from finetune.recipe.options import ServeOptions, check
from finetune.recipe.vllm_rules import find_obstacles, max_rank, vllm_command
from finetune.serve.gguf_file import find_gguf
from finetune.serve.targets import ServeTarget, check_names

FIRST_KEY = (
    "tr , '\\n' | awk '!/^ *#/ && NF {print $NF; exit}'"  # of lines `KEY` or `NAME KEY`, as `read_keys` takes them
)


@dataclass(frozen=True)
class Handover:
    """Commands, in order: the exports that do not exist yet, then vLLM itself."""

    exports: tuple[str, ...]
    vllm: str


def hand_over(
    targets: Sequence[ServeTarget],
    options: ServeOptions | None = None,
    *,
    key_source: str | None = None,
    model: str | None = None,
) -> Handover:
    """The commands with which vLLM serves the targets at the same address, under the same names and with the same key.

    No weights are loaded.

    Args:
        targets: what `slmtune serve` would serve.
        options: the address, and the certificate if there is one.
        key_source: the command that prints the keys of the server; vLLM takes the first of them.
        model: the base model of the adapters, if it is no longer where it was during training.

    Raises:
        InputError: vLLM cannot load an adapter, which is named with the reason and the command that merges it; the targets
            cannot be served together; or other machines could reach vLLM without a key.
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
    address = _address(options, has_key=key_source is not None)
    key = f'VLLM_API_KEY="$({key_source} | {FIRST_KEY})" ' if key_source is not None else ""
    if not adapters:
        return Handover((), key + _serve_whole(opened, address))
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
    return Handover(tuple(export for _, export in exports.values() if export), key + command)


def _address(options: ServeOptions, *, has_key: bool) -> list[str]:
    """The options for the address; without them, vLLM listens on every address."""
    try:
        is_local = ipaddress.ip_address(options.host).is_loopback
    except ValueError:
        is_local = options.host == "localhost"
    if not (is_local or has_key):
        raise InputError(
            f"{options.host} can be reached from other machines, which requires a key. Add --api-key-file FILE"
        )
    certificate = {"--ssl-certfile": options.ssl_certfile, "--ssl-keyfile": options.ssl_keyfile}
    tls = [word for option, path in certificate.items() if path is not None for word in (option, str(path))]
    return ["--host", options.host, "--port", str(options.port), *tls]


def _serve_whole(opened: Mapping[str, AnyModel], address: Sequence[str]) -> str:
    if len(opened) > 1:
        raise InputError(f"{', '.join(opened)} are different models. Start vLLM once for each")
    [(name, artifact)] = opened.items()
    location, revision = _location(artifact) if isinstance(artifact, BaseModel) else (str(artifact.path), None)
    pinned = ["--revision", revision] if revision else []
    return shlex.join(["vllm", "serve", location, *pinned, "--served-model-name", name, *address])


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


def _export_of(adapter: Adapter, model: str | None) -> tuple[Path, str | None]:
    """The folder of an adapter's export for vLLM, and the command that writes it unless it exists."""
    beside = adapter.path.with_name(f"{adapter.path.name}-vllm")
    for folder in (beside, adapter.path.parent / "export" / "vllm"):
        manifest = read_manifest(folder) or {}
        parent = manifest.get("parents", {}).get("adapter", {})
        is_export = manifest.get("kind") == "export" and manifest["config"]["format"] == "vllm"
        if is_export and parent.get("fingerprint") == adapter.fingerprint:
            return folder, None
    words = ["slmtune", "export", str(adapter.path), "--format", "vllm", "--output-dir", str(beside)]
    return beside, shlex.join([*words, *(["--model", model] if model is not None else [])])


def _location(base: BaseModel) -> tuple[str, str | None]:
    """The Hub id and the revision of a base model, or its folder."""
    return (str(base.folder), None) if base.source == "local" else (base.name, base.revision)
