"""The facts on the card of an export: its files, how it was verified, and the commands that run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.artifacts import UNHASHED, Export
from finetune.machine import format_bytes
from finetune.recipe import AdapterRecipe
from finetune.recipe.vllm_rules import serve_commands

DTYPES = {"f32": "fp32", "int8": "q8"}  # of transformers.js


@dataclass(frozen=True)
class ExportFacts:
    """What the card of an export says about its files, which are those in the folder of the export."""

    export: Export

    @property
    def format(self) -> str:
        """The format, by its name on the command line."""
        return str(self.export.config["format"])

    @property
    def precision(self) -> str | None:
        """The precision of the weights; None if they are those of the adapter."""
        precision: str | None = self.export.config["quantization"]
        return precision

    @property
    def dtype(self) -> str:
        """The precision as transformers.js names it."""
        return DTYPES[str(self.precision)]

    @property
    def has_template(self) -> bool:
        """Whether Ollama finds the chat template in the repository."""
        return bool(self.export.config["ollama"])

    def files(self) -> list[list[str]]:
        """Name and size of each file."""
        folder = self.export.path
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in UNHASHED)
        return [[f"`{path.relative_to(folder)}`", format_bytes(path.stat().st_size)] for path in paths]

    @property
    def agreement(self) -> Mapping[str, Any] | None:
        """The comparison with the adapter; None if nothing ran the files."""
        agreement: Mapping[str, Any] | None = self.export.manifest["verification"]
        return agreement

    @property
    def reference(self) -> str:
        """What the files were compared with."""
        if self.format == "vllm":
            return "adapter over its unquantised base model"
        if "model" in self.export.manifest["parents"]:
            return "merged model"
        if "adapter" in self.export.manifest["parents"]:
            return "adapter over its base model as trained"
        return "same weights in transformers"

    def measurements(self) -> list[list[str]]:
        """The figures of the comparison, and what else was measured with it."""
        assert self.agreement is not None
        kl, greedy = max(self.agreement["mean_kl"], 0.0), self.agreement["greedy"]
        outcome = "Equal predictions" if self.export.manifest.get("head") else "Equal greedy tokens"
        further = self.export.manifest["facts"].items()
        return [
            ["Mean KL in nats", f"{kl:.4f}"],
            [outcome, f"{greedy:.1%}"],
            *([_label(name), f"{value:.4g}"] for name, value in further),
        ]

    def serve_commands(self, folder: str) -> Sequence[str]:
        """The commands of vLLM and SGLang for a copy of the export in `folder`."""
        recipe = AdapterRecipe.model_validate(self.export.config["adapter_config"])
        return serve_commands(recipe, self.export.manifest["parents"], Path(folder))


def _label(name: str) -> str:
    """The name of a measurement, for people."""
    text = name.replace("_", " ").replace(" kl ", " KL ")
    return text if text.startswith("ms ") else text[:1].upper() + text[1:]
