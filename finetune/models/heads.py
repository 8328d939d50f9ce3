"""The output head of an encoder: what it predicts, and the names of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

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
