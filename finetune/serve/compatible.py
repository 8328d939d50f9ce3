"""Whether an adapter can be served beside the models that are in memory: the same base model, precision and tokenizer."""

from __future__ import annotations

from pathlib import Path

from finetune.artifacts import Adapter
from finetune.errors import BaseModelError, InputError
from finetune.models.heads import Head
from finetune.models.load import LoadedModel
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe

UNQUANTIZED = ("none", "auto")  # the precision of a base model that is loaded without an adapter
TOKENIZER_FILES = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")


def precision_of(adapter: Adapter) -> tuple[str, str]:
    """In which precision the base model of an adapter is loaded."""
    recipe = AdapterRecipe.model_validate(adapter.config)
    return recipe.quantization, recipe.compute_dtype


class Company:
    """The models in memory, beside which adapters may be served."""

    def __init__(self, loaded: LoadedModel, precision: tuple[str, str]) -> None:
        self._loaded, self._precision = loaded, precision
        self._known: set[tuple[str | None, ...]] = set()  # checksums of the files of tokenizers like this one

    def open(self, folder: Path) -> Adapter:
        """Verify the adapter in a folder.

        Raises:
            MissingStageError: the folder does not exist.
            ArtifactError: it is not an adapter, or a file was changed.
            BaseModelError: it was trained on another base model.
            InputError: it needs another precision or tokenizer.
        """
        adapter = Adapter.open(folder)
        parent = adapter.manifest["parents"]["base_model"]
        base = self._loaded.base
        if parent["fingerprint"] != base.fingerprint:
            raise BaseModelError(
                f"The adapter at {folder} was trained on {parent['name']} (weights {parent['fingerprint'][:12]}), but this "
                f"server has {base.name} (weights {base.fingerprint[:12]}). Start a server of its own for it"
            )
        if Head.of_manifest(adapter.manifest) is not None or precision_of(adapter) != self._precision:
            raise InputError(
                f"The adapter at {folder} needs its base model in another precision or with a head. Start a server of its own "
                "for it"
            )
        self._require_tokenizer(adapter)
        return adapter

    def _require_tokenizer(self, adapter: Adapter) -> None:
        checksums = tuple(adapter.manifest["files"].get(name) for name in TOKENIZER_FILES)
        if checksums in self._known:
            return
        own, its = self._loaded.tokenizer, load_tokenizer(adapter.path, self._loaded.base)
        if (its.chat_template, its.get_vocab()) != (own.chat_template, own.get_vocab()):
            raise InputError(
                f"The adapter at {adapter.path} has another tokenizer or chat template than the models of this server. Start "
                "a server of its own for it"
            )
        self._known.add(checksums)
