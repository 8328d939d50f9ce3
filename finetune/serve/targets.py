"""Resolves the artifacts or names to serve, and loads them into one engine with one base model in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Adapter, Model
from finetune.errors import InputError
from finetune.machine import end_idle_threads
from finetune.models.effect import require_effect
from finetune.models.find import BaseModel, base_of, weights_fingerprint
from finetune.models.heads import Head
from finetune.models.load import attach_adapter, load_adapter, load_merged
from finetune.models.open import AnyModel, open_model
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import Engine as EngineName
from finetune.serve.compatible import precision_of
from finetune.serve.engine.classifier import Classifier
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import MODEL_NAME, ServedModel
from finetune.serve.engine.kinds import AnyEngine
from finetune.serve.gguf_file import find_gguf, open_gguf
from finetune.serve.runners.memory import require_base_fits
from finetune.serve.text_engine import open_text_engine


@dataclass(frozen=True)
class ServeTarget:
    """A name for clients, and what it refers to: an Adapter or Model, the name of a base model, or a GGUF file."""

    name: str
    path: Path | str


def open_engine(
    targets: Sequence[ServeTarget],
    *,
    model: str | None = None,
    engine: EngineName = "transformers",
    max_memory: int | None = None,
) -> AnyEngine:
    """Load the targets: adapters of one base model (which is served too), one merged model, one base model, or one GGUF file.

    Of an encoder, only adapters and merged models are served: its base has no head, so it has nothing to say.

    `model` is the base model of the adapters, if it is no longer where it was during training. An encoder is always computed
    by transformers, and a GGUF file by llama.cpp. `max_memory` is the number of bytes that this process may take, within
    which an engine keeps what it computes of requests.

    Raises:
        InputError: names clash, the targets need different base models in memory, or llama.cpp was asked for and does not
            support them.
        SlmtuneError: an artifact or the base model cannot be opened.
    """
    try:
        return _open(targets, model, engine, max_memory)
    finally:
        end_idle_threads()  # that loaded: an engine computes in a thread of its own


def _open(targets: Sequence[ServeTarget], model: str | None, engine: EngineName, max_memory: int | None) -> AnyEngine:
    check_names([target.name for target in targets])
    files = {target.name: find_gguf(target.path) for target in targets}
    if any(files.values()):
        return _open_file(files, max_memory)
    opened = [(target.name, open_model(target.path)) for target in targets]
    adapters = [(name, artifact) for name, artifact in opened if isinstance(artifact, Adapter)]
    if adapters:
        others = [(name, other) for name, other in opened if not isinstance(other, Adapter)]
        return _open_adapters(adapters, others, model, engine, max_memory)
    if len(opened) > 1:
        raise _several_bases_error(name for name, _ in opened)
    name, artifact = opened[0]
    assert isinstance(artifact, Model | BaseModel)
    return _open_alone(artifact, name, engine, max_memory)


def _open_file(files: Mapping[str, Path | None], max_memory: int | None) -> Engine:
    """Load a GGUF file; an adapter beside it is for the model from which the file was made."""
    if len(files) > 1:
        raise InputError(
            f"{', '.join(files)}: a GGUF file is served alone. To serve adapters with llama.cpp, name only them, and add "
            "--engine llama.cpp"
        )
    ((name, file),) = files.items()
    assert file is not None
    return open_gguf(name, file, max_memory)


def _open_adapters(
    adapters: Sequence[tuple[str, Adapter]],
    others: Sequence[tuple[str, AnyModel]],
    model: str | None,
    engine: EngineName,
    max_memory: int | None,
) -> AnyEngine:
    """Load the first adapter with its base model, add the others, and name the base model for requests."""
    base, head = base_of(adapters[0][1], model), Head.of_manifest(adapters[0][1].manifest)
    _require_same_head(adapters, others)
    fingerprints = {base_of(adapter, model).fingerprint for _, adapter in adapters}
    fingerprints |= {other.fingerprint if isinstance(other, BaseModel) else "merged" for _, other in others}
    precisions = {precision_of(adapter) for _, adapter in adapters}
    if len(fingerprints) > 1 or len(precisions) > 1:
        raise _several_bases_error(name for name, _ in (*adapters, *others))
    base_ids = [name for name, _ in others] or ([base.name] if head is None else [])
    _check_distinct([*base_ids, *(name for name, _ in adapters)])
    parent = base_ids[0] if base_ids else base.name
    served = [ServedModel.of(adapter, name, name, parent) for name, adapter in adapters] + [
        ServedModel(name) for name in base_ids
    ]
    tokenizer = _load_tokenizer(adapters, base)
    recipe = AdapterRecipe.model_validate(adapters[0][1].config)
    if head is not None:
        require_base_fits(base, recipe, max_memory)
        return _open_classifier(adapters, served, model)
    return open_text_engine(base, recipe, tokenizer, adapters, served, engine, max_memory)


def _open_classifier(
    adapters: Sequence[tuple[str, Adapter]], served: Sequence[ServedModel], model: str | None
) -> Classifier:
    loaded = load_adapter(adapters[0][1], model)
    inner = [loaded.model.active_adapter, *(f"adapter{number}" for number in range(1, len(adapters)))]
    for inner_name, (_, adapter) in zip(inner[1:], adapters[1:], strict=True):
        attach_adapter(loaded.model, adapter.path, inner_name)
        require_effect(loaded.model, adapter.path, inner_name, is_encoder=True)
    return Classifier(loaded, [replace(one, adapter=name) for one, name in zip(served, inner, strict=True)])


def _open_alone(artifact: Model | BaseModel, name: str, engine: EngineName, max_memory: int | None) -> AnyEngine:
    """Load a merged model or a base model."""
    recipe = AdapterRecipe(quantization="none")
    if isinstance(artifact, BaseModel):
        base, served = artifact, ServedModel(name)
    else:
        served = ServedModel.of(artifact, name)
        parent = str(artifact.manifest["parents"]["base_model"]["name"])
        base = BaseModel(parent, artifact.path, "local", weights_fingerprint(artifact.path))
        if Head.of_manifest(artifact.manifest) is not None:
            require_base_fits(base, recipe, max_memory)
            return Classifier(load_merged(artifact), [served])
    tokenizer = load_tokenizer(base.folder, base)
    return open_text_engine(base, recipe, tokenizer, [], [served], engine, max_memory)


def _load_tokenizer(adapters: Sequence[tuple[str, Adapter]], base: BaseModel) -> PreTrainedTokenizerBase:
    """The tokenizer of all adapters.

    Raises:
        InputError: they have different ones, or different chat templates.
    """
    (first, adapter), *others = adapters
    tokenizer = load_tokenizer(adapter.path, base)
    for name, other in others:
        its = load_tokenizer(other.path, base)
        if (its.chat_template, its.get_vocab()) != (tokenizer.chat_template, tokenizer.get_vocab()):
            raise InputError(f"{name} and {first} have different tokenizers or chat templates. Serve them separately")
    return tokenizer


def _require_same_head(adapters: Sequence[tuple[str, Adapter]], others: Sequence[tuple[str, AnyModel]]) -> None:
    """Refuse adapters that predict different things, and the base model of an encoder beside its adapters.

    Raises:
        InputError: names the targets.
    """
    heads = {Head.of_manifest(adapter.manifest) for _, adapter in adapters}
    if len(heads) > 1:
        raise InputError(
            f"{', '.join(name for name, _ in adapters)} predict different things, or different labels. Start one server for "
            "each"
        )
    if others and heads != {None}:
        raise InputError(f"{others[0][0]} has no head for labels or answers. Serve only adapters of this encoder")


def check_names(names: Sequence[str]) -> None:
    """Refuse names that requests could not contain, or that occur twice.

    Raises:
        InputError: names the name at fault, or there are none.
    """
    if not names:
        raise InputError("There is nothing to serve. Pass --domain, or NAME=ADAPTER")
    for name in names:
        if not MODEL_NAME.fullmatch(name):
            raise InputError(f"{name!r} is not a valid model name. Use only letters, digits and . _ : / @ -")
    _check_distinct(names)


def _check_distinct(names: Sequence[str]) -> None:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise InputError(
            f"Two models would be called {duplicates[0]!r}. Give one of them another name with NAME=ADAPTER"
        )


def _several_bases_error(names: Iterable[str]) -> InputError:
    return InputError(
        f"{', '.join(names)} need different base models or precisions, and a server keeps only one base model in memory. "
        "Start one server for each"
    )
