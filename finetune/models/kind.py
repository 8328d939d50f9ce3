"""What a base model is for, from its config.json alone: a causal language model continues text, an encoder reads it."""

from __future__ import annotations

from pathlib import Path

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from finetune.errors import InputError
from finetune.models.config import read_config
from finetune.models.presets import KNOWN, Kind, list_presets

# Encoders are pretrained on masked text, and transformers has their classes with a head for texts and for answers.
ENCODERS = (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    & MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.keys()
    & MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES.keys()
)


def find_kind(folder: Path) -> Kind:
    """The kind of the model in a folder.

    Raises:
        InputError: there is no config.json; transformers does not know the type of the model, or it is neither a causal
            language model nor an encoder; or it needs Python code of its own, which slmtune never executes.
    """
    config = read_config(folder)
    model_type, names = config.get("model_type"), config.get("architectures") or []
    if model_type not in CONFIG_MAPPING_NAMES:
        problem = (
            "needs Python code from its own repository, and slmtune does not execute such code"
            if "auto_map" in config
            else f"is not known to transformers {transformers.__version__}; a newer version may know it"
        )
        raise InputError(f"{folder.name} cannot be loaded: its model type {model_type!r} {problem}. {KNOWN}")
    if any("CausalLM" in name or "LMHead" in name for name in names):
        return "causal"
    if model_type in ENCODERS and not config.get("is_encoder_decoder"):
        return "encoder"
    raise InputError(
        f"{folder.name} is neither a causal language model nor an encoder ({', '.join(names) or 'no architecture'}). {KNOWN}"
    )


def require_kind(folder: Path, kind: Kind) -> None:
    """Refuse a model of the other kind.

    Raises:
        InputError: as `find_kind`, or the model is of the other kind; lists presets of the right one.
    """
    if find_kind(folder) == kind:
        return
    if kind == "causal":
        problem = "an encoder, which classifies texts and finds answers in them but writes none"
        remedy = "Train it with --task classification or extraction, or choose a causal language model"
    else:
        problem = "a causal language model, which has no head for classes or answers"
        remedy = "Leave out --task, so that it learns to write its answers, or choose an encoder"
    raise InputError(f"{folder.name} is {problem}. {remedy}: {list_presets(kind)}")
