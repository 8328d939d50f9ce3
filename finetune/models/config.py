"""What a base model's config.json says: its context, its vocabulary, and a fingerprint of what determines its computation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finetune.errors import InputError

# Keys that do not change what a model computes in the precision and with the attention that slmtune chooses.
NEUTRAL = {
    *("transformers_version", "_name_or_path", "_attn_implementation", "torch_dtype", "dtype", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
}
CONTEXT_KEYS = ("max_position_embeddings", "n_positions")
COUNTING_FROM_PADDING = (
    "roberta",
    "xlm-roberta",
    "camembert",
)  # whose positions follow the number of the padding token
EXTENDING = ("linear", "dynamic", "yarn")  # scalings of rotary positions whose factor may not be in the keys above


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration in a folder.

    Raises:
        InputError: there is no config.json, or it is not a JSON object.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{folder} has no readable config.json. Give a preset, a Hub id or the folder of a model")
    return config


def context_of(config: Mapping[str, Any]) -> int | None:
    """The largest number of tokens that a model reads; None if its positions have no limit."""
    text = _text_part(config)
    limit: int | None = next((text[key] for key in CONTEXT_KEYS if isinstance(text.get(key), int)), None)
    if limit is None:
        return None
    if text.get("model_type") in COUNTING_FROM_PADDING:
        return limit - int(text.get("pad_token_id") or 0) - 1
    scaled = [
        int((rope.get("original_max_position_embeddings") or limit) * (rope.get("factor") or 1))
        for rope in _rope_settings(text)
        if rope.get("rope_type", rope.get("type")) in EXTENDING
    ]
    return max(limit, *scaled) if scaled else limit


def vocabulary_of(config: Mapping[str, Any]) -> int | None:
    """The number of token ids that have an embedding."""
    size: Any = _text_part(config).get("vocab_size")
    return size if isinstance(size, int) else None


def config_fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 over all settings that may change what the model computes, hexadecimal."""
    kept = json.dumps(_without_neutral(config), sort_keys=True)
    return hashlib.sha256(kept.encode()).hexdigest()


def _without_neutral(value: Any) -> Any:
    if isinstance(value, dict):
        rest = {key: item for key, item in value.items() if key not in NEUTRAL and item is not None}
        return {key: _without_neutral(item) for key, item in rest.items()}
    return value


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    part = config.get("text_config")
    return part if isinstance(part, dict) else config


def _rope_settings(text: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The scalings of rotary positions: one for all layers, or one per type of layer."""
    for key in ("rope_scaling", "rope_parameters"):
        settings = text.get(key)
        if isinstance(settings, dict):
            yield settings
            yield from (item for item in settings.values() if isinstance(item, dict))
