"""config.json → the linear layers, parameters and activations of a model, without building it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.errors import UnplannedModelError
from finetune.hub.snapshots import Need
from finetune.models.config import context_of, read_config
from finetune.models.find import find_base, local_folder
from finetune.models.presets import Preset, find_preset
from finetune.plan.encoder_shapes import ENCODERS, make_encoder_shape
from finetune.plan.model_shape import Linear, ModelShape
from finetune.plan.published import PUBLISHED

# The defaults of transformers for keys missing in config.json. num_key_value_heads: None means as many as heads.
_COMMON: dict[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "qk_layernorm": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
}
_GEMMA = _COMMON | {"num_key_value_heads": 4, "head_dim": 256, "tie_word_embeddings": True}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _COMMON,
    "mistral": _COMMON | {"num_key_value_heads": 8},
    "qwen2": _COMMON | {"num_key_value_heads": 32},
    "gemma": _GEMMA | {"num_key_value_heads": 16},
    "gemma2": _GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "gemma3_text": _GEMMA,
    "phi": _COMMON,
    "phi3": _COMMON,
    "qwen3": _COMMON | {"num_key_value_heads": 32, "head_dim": 128},
    "smollm3": _COMMON | {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "granite": _COMMON | {"logits_scaling": 1.0},
    "olmo2": _COMMON,
}
SWIGLU = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "granite",
    "olmo2",
)  # blocks that train/fast/swiglu.py replaces
HEAD_NORMS = ("gemma3_text", "qwen3")  # norms over the width of a head, of queries and of keys
# Keys with which some architectures scale or bound their logits; train/fast/loss.py then uses the model's own logits.
SCALED_LOGITS = (
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
    "logits_soft_cap",
    "output_logit_soft_cap",
)


def shape_of(name: str, revision: str | None = None) -> ModelShape:
    """The shape of a preset, Hub id or folder; for a Hub id that is not cached, only config.json is downloaded.

    Raises:
        InputError: there is no config.json, it belongs to an unknown family, or the preset is not trainable.
        OfflineError, HubError, UnknownNameError: it cannot be downloaded.
    """
    preset = find_preset(name) if local_folder(name) is None else None
    if preset and preset.name in PUBLISHED and revision is None:
        return preset_shape(preset)
    return read_shape(find_base(name, revision, need=Need.CONFIGURATION).folder)


def preset_shape(preset: Preset) -> ModelShape:
    """The shape of a preset, from its published configuration."""
    return replace(make_shape(PUBLISHED[preset.name]), context=preset.context)


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model in a folder.

    Raises:
        InputError: there is no config.json.
        UnplannedModelError: the model belongs to an unknown family.
    """
    return make_shape(read_config(folder))


def make_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a configuration describes.

    Raises:
        UnplannedModelError: the family is unknown, or a size is missing.
    """
    kind = str(config.get("model_type"))
    if kind not in (*FAMILIES, *ENCODERS):
        raise UnplannedModelError(
            f"Memory use cannot be planned for {kind!r} models, which slmtune train trains without a plan; it can for: "
            f"{', '.join(sorted((*FAMILIES, *ENCODERS)))}"
        )
    try:
        return make_encoder_shape(config) if kind in ENCODERS else _make_decoder_shape(kind, config)
    except KeyError as error:
        raise UnplannedModelError(
            f"The model's config.json has no {error}, so its memory use cannot be planned; slmtune train needs no plan"
        ) from None


def _make_decoder_shape(kind: str, config: Mapping[str, Any]) -> ModelShape:
    values = FAMILIES[kind] | {key: value for key, value in config.items() if value is not None}
    hidden, inner = int(values["hidden_size"]), int(values["intermediate_size"])
    layers, heads = int(values["num_hidden_layers"]), int(values["num_attention_heads"])
    vocabulary = int(values["vocab_size"])
    groups, width = int(values["num_key_value_heads"] or heads), int(values["head_dim"] or hidden // heads)
    query, key = heads * width, groups * width
    linears = _linears(kind, values, hidden, inner, query, key)
    norms, head_norms = _norms(kind, values, heads, groups)
    norm = 2 * hidden if kind == "phi" else hidden  # LayerNorm has a bias
    in_block = norms * norm + head_norms * width + sum(linear.outputs for linear in linears if linear.bias)
    head = 0 if values["tie_word_embeddings"] else vocabulary * hidden
    head += vocabulary if kind == "phi" else 0
    whole = bool(values["attn_logit_softcapping"])
    return ModelShape(
        hidden=hidden,
        inner=inner,
        layers=layers,
        heads=heads,
        vocabulary=vocabulary,
        tokenizer=vocabulary,
        linears=linears,
        other_parameters=vocabulary * hidden + layers * in_block + norm + head,
        activations=_count_activations(kind, hidden, inner, query, key, heads, groups, whole=whole),
        in_float32=_count_float32(kind, norms, hidden, query, key, heads, groups, whole=whole),
        repeated=0 if whole else 2 * (query - key),
        recomputed=2 * inner if kind in SWIGLU else 0,
        passing=(4 if kind == "phi" else 2) * inner,  # gelu_new is computed in four steps
        queries=query,
        keys=2 * key,
        whole_scores=whole,
        softcapped_logits=bool(values["final_logit_softcapping"]),
        full_logits=any(values.get(key) for key in SCALED_LOGITS),
        packs=not values.get("attention_dropout"),
        shares=not any("drop" in key and value for key, value in values.items()),
        context=context_of(config),
    )


def _linears(kind: str, values: Mapping[str, Any], hidden: int, inner: int, query: int, key: int) -> tuple[Linear, ...]:
    if kind == "phi3":  # three layers in one, and two
        return (
            Linear("self_attn.qkv_proj", hidden, query + 2 * key, False),
            Linear("self_attn.o_proj", query, hidden, False),
            Linear("mlp.gate_up_proj", hidden, 2 * inner, False),
            Linear("mlp.down_proj", inner, hidden, False),
        )
    inward = outward = bool(values["attention_bias"]) and kind != "mistral"
    if kind in ("qwen2", "phi"):
        inward, outward = True, kind == "phi"
    attention = (
        Linear("self_attn.q_proj", hidden, query, inward),
        Linear("self_attn.k_proj", hidden, key, inward),
        Linear("self_attn.v_proj", hidden, key, inward),
        Linear("self_attn.dense" if kind == "phi" else "self_attn.o_proj", query, hidden, outward),
    )
    if kind == "phi":
        return (*attention, Linear("mlp.fc1", hidden, inner, True), Linear("mlp.fc2", inner, hidden, True))
    biased = bool(values["mlp_bias"]) and kind in ("llama", "smollm3", "granite")
    return (
        *attention,
        Linear("mlp.gate_proj", hidden, inner, biased),
        Linear("mlp.up_proj", hidden, inner, biased),
        Linear("mlp.down_proj", inner, hidden, biased),
    )


def _norms(kind: str, values: Mapping[str, Any], heads: int, groups: int) -> tuple[int, int]:
    """Number of norms per block over the hidden width, and parameters of other norms, in widths of a head."""
    if kind == "phi":
        return 1, 4 if values["qk_layernorm"] else 0
    if kind == "olmo2":  # norms over all queries and over all keys
        return 2, heads + groups
    return (4 if kind in ("gemma2", "gemma3_text") else 2), (2 if kind in HEAD_NORMS else 0)


def _count_activations(
    kind: str, hidden: int, inner: int, query: int, key: int, heads: int, groups: int, *, whole: bool
) -> int:
    """Numbers per token that autograd keeps for a block; frozen weights save what only their gradients would need.

    Measured with torch.autograd.graph.saved_tensors_hooks (transformers 5.23), counting tensors that share memory once;
    tests/plan/test_plan.py repeats the measurement.
    """
    if kind == "phi":  # one norm for attention and MLP; gelu_new keeps four tensors, and fc2 its input
        return 2 * hidden + 3 * query + 2 * key + heads + 5 * inner + 2
    norms = 4 * hidden + 2  # input and output of both, and the scale of each
    if kind in ("gemma2", "gemma3_text"):
        norms += 2 * hidden + 2  # two more, whose output goes into a sum and is not kept
    # Query, key, value, the attended values, and these in the order in which o_proj reads them; without the fused kernel
    # keys and values have repeated heads, and the attended values are kept once.
    attention = 4 * query if whole else 3 * query + 2 * key + heads
    attention += _count_key_norms(kind, query, key, heads, groups)
    return norms + attention + 4 * inner  # gate, its activation, up, and their product


def _count_float32(
    kind: str, norms: int, hidden: int, query: int, key: int, heads: int, groups: int, *, whole: bool
) -> int:
    """Those of these numbers that are in float32 in any precision: input and scale of RMS norms, normalisers of softmax."""
    count = 0 if whole else heads
    if kind == "phi":  # LayerNorm makes no copy in float32
        return count
    return count + _count_key_norms(kind, query, key, heads, groups) + norms * (hidden + 1)


def _count_key_norms(kind: str, query: int, key: int, heads: int, groups: int) -> int:
    """Inputs and scales of the norms over query and key."""
    if kind == "olmo2":
        return query + key + 2
    return query + key + heads + groups if kind in HEAD_NORMS else 0
