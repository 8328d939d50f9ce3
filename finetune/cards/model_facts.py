"""The facts and tables of a model card, from the manifest of the artifact."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.artifacts import Adapter, Export, Model
from finetune.cards.hub_forms import FORMS, HubForm
from finetune.machine import format_bytes

UNKNOWN_LICENSES = {"", "other", "unknown"}
QUANTIZATIONS = {
    "nf4": "4-bit NF4, double quantisation",
    "fp4": "4-bit FP4, double quantisation",
    "int8": "8-bit integers, a scale per row",
    "none": "unquantised",
}
COMPARED_WITH = {"exact": "adapter over the same weights", "drift": "adapter over its base as trained"}


@dataclass(frozen=True)
class Subject:
    """The subject of a card: an adapter, the model that it was merged into, or an export of either."""

    artifact: Adapter | Model | Export

    @property
    def form(self) -> HubForm:
        """How the Hub files the artifact."""
        return FORMS[self.artifact.config["format"] if self.is_export else self.artifact.kind]

    @property
    def is_export(self) -> bool:
        """Whether the artifact is an export, whose files are not those of PEFT or transformers."""
        return isinstance(self.artifact, Export)

    @property
    def is_base(self) -> bool:
        """Whether the artifact is an export of a base model, without an adapter."""
        return self.is_export and "adapter_config" not in self.artifact.config

    @property
    def is_merged(self) -> bool:
        """Whether the artifact includes the weights of the base model."""
        return self.form.relation != "adapter"

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe that the adapter was trained with, also for a merged model."""
        config = self.artifact.config
        recipe: Mapping[str, Any] = config.get("adapter_config", {} if self.is_base else config)
        return recipe

    @property
    def head(self) -> Mapping[str, Any] | None:
        """What an encoder predicts, and its labels; None for a causal language model."""
        head: Mapping[str, Any] | None = self.artifact.manifest.get("head")
        return head

    @property
    def pipeline_tag(self) -> str:
        """The Hub's name for what the model does."""
        if self.head is None:
            return "text-generation"
        return "question-answering" if self.head["kind"] == "extraction" else "text-classification"

    def purpose(self) -> str:
        """What an encoder predicts, in a sentence."""
        assert self.head is not None
        if self.head["kind"] == "extraction":
            return "It finds the answer to a question in a context, in the words of the context."
        labels = ", ".join(f"`{cell(label)}`" for label in self.head["labels"])
        return f"It gives a text {'any number' if self.head['kind'] == 'multi-label' else 'one'} of these labels: {labels}."

    @property
    def quantization(self) -> str:
        """The form of the base model's weights in training."""
        return str(self.recipe.get("quantization") or ("nf4" if self.recipe.get("load_in_4bit") else "none"))

    @property
    def is_quantized(self) -> bool:
        """Whether the base model was quantised in training."""
        return self.quantization != "none"

    @property
    def base(self) -> Mapping[str, Any]:
        """Name, source, revision, fingerprint and licence of the base model."""
        base: Mapping[str, Any] = self._parents.get("base_model") or {}
        return {"name": "an unknown base model", "source": "", "revision": None, **base}

    @property
    def base_is_on_hub(self) -> bool:
        """Whether the name of the base model is a Hub id: a link to a local folder would be dead."""
        return str(self.base["name"]).count("/") == 1

    @property
    def license(self) -> str | None:
        """The licence of the base model, or None if it is unknown."""
        license = str(self.base.get("license") or "").lower()
        return None if license in UNKNOWN_LICENSES else license

    @property
    def domain(self) -> str:
        """The domain of the corpus."""
        return str(self._corpus.get("domain") or "custom")

    @property
    def sources(self) -> Sequence[Mapping[str, Any]]:
        """The sources of the corpus."""
        sources: Sequence[Mapping[str, Any]] = self._corpus.get("sources") or []
        return sources

    @property
    def hub_datasets(self) -> list[str]:
        """The Hub ids of the sources, in order."""
        matches = (re.match(r"hf://datasets/([^@:]+)", str(source.get("uri", ""))) for source in self.sources)
        return list(dict.fromkeys(match[1] for match in matches if match))

    @property
    def _parents(self) -> Mapping[str, Any]:
        parents: Mapping[str, Any] = self.artifact.manifest.get("parents", {})
        return parents

    @property
    def _corpus(self) -> Mapping[str, Any]:
        corpus: Mapping[str, Any] = self._parents.get("corpus") or {}
        return corpus

    def settings(self) -> list[list[str]]:
        """Hyperparameters and outcome, one row each, without those missing in the manifest."""
        recipe, result = self.recipe, self.artifact.manifest.get("result", {})
        counts, targets = self._corpus.get("counts") or {}, recipe.get("target_modules") or []
        memory, scores = result.get("peak_memory_bytes"), result.get("eval_figures") or {}
        rows = {
            "Rows (train / validation / test)": " / ".join(str(rows) for rows in counts.values()),
            "Rows per epoch": _list(result.get("mixture") or {}),
            "Base model in training": QUANTIZATIONS[self.quantization],
            "LoRA rank, alpha, dropout": _joined(recipe, "lora_r", "lora_alpha", "lora_dropout"),
            "Target modules": targets if isinstance(targets, str) else ", ".join(targets),
            "Learning rate, schedule, warm-up": _joined(recipe, "learning_rate", "lr_scheduler_type", "warmup_ratio"),
            "Batch size, accumulation": _joined(recipe, "per_device_train_batch_size", "gradient_accumulation_steps"),
            "Longest row in tokens": _joined(recipe, "max_length"),
            "Seed": str(recipe.get("seed", "")),
            "Steps, epochs": _joined(result, "steps", "epochs"),
            "Best step": _describe_step(result),
            "Tokens": _joined(result, "tokens"),
            "Training loss": _joined(result, "train_loss"),
            "Held-out loss": _joined(result, "eval_loss"),
            "Held-out scores": _list(scores),
            "Time in seconds": _joined(result, "seconds"),
            "Peak memory": format_bytes(memory) if memory else "",
        }
        return [[name, value] for name, value in rows.items() if value]

    @property
    def is_verified(self) -> bool:
        """Whether a merged model was within the limits of its comparison."""
        return bool((self.artifact.manifest.get("verification") or {}).get("verified", True))

    @property
    def bundled_rows(self) -> int:
        """How many of the rows of its comparison are general ones that do not come from the corpus."""
        return int((self.artifact.manifest.get("verification") or {}).get("bundled_rows", 0))

    def comparisons(self) -> list[list[str]]:
        """The distance of a merged model from the adapter, one row per comparison."""
        distances = self.artifact.manifest.get("verification") or {}
        return [
            [
                COMPARED_WITH[key],
                str(figures["prompts"]),
                f"{figures['max_abs_logit_diff']:.4f}",
                f"{figures['mean_kl']:.5f}",
                f"{figures['greedy_agreement']:.1%}",
            ]
            for key, figures in distances.items()
            if key in COMPARED_WITH
        ]

    def lineage(self) -> list[list[str]]:
        """Fingerprints of the ancestors, and of the artifact once it is complete."""
        rows = [[name.replace("_", " ").capitalize(), parent["fingerprint"]] for name, parent in self._parents.items()]
        if "files" in self.artifact.manifest:
            rows.append([f"This {self.artifact.kind}", self.artifact.fingerprint])
        return rows


def _describe_step(result: Mapping[str, Any]) -> str:
    """The step whose weights the adapter has, if evaluations decided that."""
    if not result.get("metric"):
        return ""
    early = f"; stopped early, after step {result['steps']}" if result["steps"] < result["planned_steps"] else ""
    by = str(result["metric"]).replace("_", " ")
    return f"{result['adapter_step']} of {result['planned_steps']}, by held-out {by}{early}"


def cell(value: object) -> str:
    """Escape text so that it cannot break out of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _joined(values: Mapping[str, Any], *keys: str) -> str:
    return ", ".join(_shown(values[key]) for key in keys if values.get(key) is not None)


def _list(figures: Mapping[str, object]) -> str:
    """Figures after their names."""
    return ", ".join(f"{name.replace('_', ' ')} {_shown(figure)}" for name, figure in figures.items())


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:g}" if abs(value) < 0.01 else f"{value:.4f}".rstrip("0").rstrip(".")
