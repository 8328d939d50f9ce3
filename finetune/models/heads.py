"""The output head of an encoder: what it predicts, and the names of its classes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

HeadKind = Literal["classification", "multi-label", "extraction"]
TASK_TYPES: Mapping[HeadKind, str] = {  # of PEFT
    "classification": "SEQ_CLS",
    "multi-label": "SEQ_CLS",
    "extraction": "QUESTION_ANS",
}


@dataclass(frozen=True)
class Head:
    """One class per row, any number of classes per row, or a span of the context; `labels` names the classes."""

    kind: HeadKind
    labels: tuple[str, ...] = ()

    @property
    def auto_class(self) -> Any:
        """The class of transformers that loads an encoder with this head."""
        return AutoModelForQuestionAnswering if self.kind == "extraction" else AutoModelForSequenceClassification

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the model's config.json."""
        if self.kind == "extraction":
            return {}
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: number for number, label in enumerate(self.labels)},
            "problem_type": "multi_label_classification"
            if self.kind == "multi-label"
            else "single_label_classification",
        }

    def describe(self) -> dict[str, Any]:
        """The head for the manifest of an artifact; `of_manifest` reads it."""
        return asdict(self)

    @classmethod
    def of_manifest(cls, manifest: Mapping[str, Any]) -> Head | None:
        """The head of an adapter or a model; None if it is a causal language model."""
        described = manifest.get("head")
        return None if described is None else cls(described["kind"], tuple(described["labels"]))


def build_skeleton(folder: Path, head: Head | None) -> PreTrainedModel:
    """The model in a folder, an encoder with its head, as modules without memory for their weights.

    Raises:
        OSError, ValueError, ImportError: transformers cannot build it.
    """
    settings = {} if head is None else head.config
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **settings)
    auto_class: Any = AutoModelForCausalLM if head is None else head.auto_class
    with torch.device("meta"):
        model: PreTrainedModel = auto_class.from_config(config, trust_remote_code=False)
    return model


def head_modules(model: nn.Module) -> tuple[str, ...]:
    """The modules of an encoder that are trained whole: all above the encoder itself, and its pooler.

    Published encoders lack some of them, which are then initialised at random, and an adapter must contain those.
    """
    prefix = str(model.base_model_prefix)
    encoder: Any = getattr(model, prefix)
    names = [name for name, child in model.named_children() if child is not encoder and _has_weights(child)]
    pooler = getattr(encoder, "pooler", None)
    return (*names, f"{prefix}.pooler") if pooler is not None and _has_weights(pooler) else tuple(names)


def write_head_config(model: PreTrainedModel, folder: Path) -> None:
    """Write the config.json of an encoder next to its adapter: transformers reads the head and its labels from there."""
    config = copy.deepcopy(model.config)
    config.name_or_path = ""  # a folder of this machine
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
