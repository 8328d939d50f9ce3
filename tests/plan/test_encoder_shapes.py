"""The plan of encoders: names, sizes, weights and activations are those of the real classes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from finetune.models.kind import ENCODERS as KNOWN
from finetune.models.presets import PRESETS
from finetune.plan import Device, plan
from finetune.plan.encoder_shapes import ENCODERS
from finetune.plan.memory import Batch, activation_bytes
from finetune.plan.published import PUBLISHED
from finetune.plan.shapes import make_shape
from finetune.recipe import AdapterRecipe
from finetune.train.arguments import lora_config
from finetune.train.batches.collate import NumberedRows
from finetune.train.batches.encoder_batches import EncoderBatches
from finetune.train.batches.labelled import LabelledRow
from finetune.train.fast import encoder_attention
from finetune.train.fast.encoder_path import find_last_layer, restore_head

GIB = 2**30
PRESET_NAMES = [preset.name for preset in PRESETS.values() if preset.kind == "encoder"]
WIDTHS = {"hidden_size": 96, "intermediate_size": 200, "num_attention_heads": 6}
SIZES: dict[str, dict[str, Any]] = {
    "bert": WIDTHS,
    "distilbert": {"dim": 96, "hidden_dim": 200, "n_heads": 6},
    "mobilebert": {
        **WIDTHS,
        "num_attention_heads": 4,
        "embedding_size": 40,
        "intra_bottleneck_size": 48,
        "true_hidden_size": 48,
    },
    "modernbert": WIDTHS | {"global_attn_every_n_layers": 1},
}
WITHOUT_DROPOUT = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}


def config_of(kind: str, layers: int = 2, **more: Any) -> dict[str, Any]:
    number = "n_layers" if kind == "distilbert" else "num_hidden_layers"
    common = {"model_type": kind, "vocab_size": 331, "pad_token_id": 0, "max_position_embeddings": 128, number: layers}
    return common | SIZES[kind] | more


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_preset_is_its_real_class(name: str) -> None:
    """The published configuration, built on the meta device: kind, context, parameters, and the layers of a block."""
    shape, preset = make_shape(PUBLISHED[name]), PRESETS[name]
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(**PUBLISHED[name]))
    assert model.config.model_type in KNOWN
    assert (shape.context, shape.kind) == (preset.context, "encoder")
    assert sum(one.numel() for one in model.parameters()) == preset.parameters == shape.parameters
    block = next(one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) == shape.layers)[-1]
    real = {path: one for path, one in block.named_modules() if isinstance(one, nn.Linear)}
    assert {one.path for one in shape.linears} == set(real)
    for one in shape.linears:
        layer = real[one.path]
        assert (one.inputs, one.outputs, one.bias) == (layer.in_features, layer.out_features, layer.bias is not None)
    assert all(isinstance(model.get_submodule(one.path), nn.Linear) for one in shape.outer)


@pytest.mark.parametrize("kind", ENCODERS)
def test_adapter_has_as_many_weights_as_that_of_peft(kind: str) -> None:
    config = config_of(kind)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**config))
    recipe = AdapterRecipe(lora_r=5)
    adapted = get_peft_model(model, lora_config(recipe, model, "SEQ_CLS"))
    trained = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    assert make_shape(config).adapter_parameters(recipe) == trained


@pytest.mark.parametrize("drops", [True, False])
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_planned_activations_are_those_that_autograd_keeps(kind: str, dtype: Any, packs: bool, drops: bool) -> None:
    more = {} if drops else WITHOUT_DROPOUT
    shape, recipe = make_shape(config_of(kind, 3, **more)), AdapterRecipe(lora_r=7, packing=packs, compute_dtype=dtype)
    planned = activation_bytes(shape, recipe, Batch(3 * 64, 64, 3), Device("cpu", GIB))
    sizes = [_kept_by(config_of(kind, layers, **more), dtype, packs and shape.packs) for layers in (2, 3)]
    assert 3 * (sizes[1] - sizes[0]) == pytest.approx(planned, rel=0.04)


def _kept_by(config: dict[str, Any], dtype: str, packs: bool) -> int:
    """Bytes that the forward pass keeps of three rows, without parameters; shared memory counts once."""
    encoder_attention.register()
    base = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model(**config), dtype=dtype, attn_implementation=encoder_attention.PACKED if packs else None
    )
    adapted: Any = get_peft_model(base, lora_config(AdapterRecipe(lora_r=7), base, "SEQ_CLS"))
    model = adapted.train().get_base_model()
    restore_head(model)
    if packs:
        find_last_layer(model).register_forward_hook(encoder_attention.unpack, with_kwargs=True)
    rows: Any = [
        LabelledRow(np.arange(3, 67 - cut, dtype=np.int32), np.zeros(64 - cut, np.int8), np.zeros(1, np.int64))
        for cut in ((0, 0, 0) if packs else (0, 5, 9))
    ]
    has_types = "token_type_ids" in inspect.signature(model.forward).parameters
    batches = EncoderBatches(NumberedRows(rows, rows), 0, packs=packs, has_types=has_types)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    tensors: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        tensors.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**batches([{"number": number} for number in range(3)])["inputs"])
    return sum(tensor.untyped_storage().nbytes() for place, tensor in tensors.items() if place not in own)


def test_encoder_is_planned_without_a_download_and_smaller_encoders_are_suggested() -> None:
    recipe = AdapterRecipe(model="bert-base", per_device_train_batch_size=1, max_length=128)
    whole = plan(recipe, device=Device("cpu", 2**40))
    assert (whole.parameters, whole.fits) == (109_482_240, True)
    smaller = plan(recipe.model_copy(update={"model": "minilm-l6"}), device=Device("cpu", 2**40))
    tight = plan(recipe, device=Device("cpu", smaller.peak_bytes))
    assert not tight.fits
    assert tight.suggestion is not None
    option, name = tight.suggestion.options.split()[:2]
    assert option == "--model"
    assert name in PRESET_NAMES


def test_attention_dropout_keeps_scores_on_a_cpu_only() -> None:
    shape = make_shape(PUBLISHED["minilm-l6"])
    calm = replace(shape, drops_scores=False)
    recipe, batch = AdapterRecipe(), Batch(2 * 512, 512, 2)
    cpu, gpu = Device("cpu", GIB), Device("gpu", GIB)
    assert activation_bytes(shape, recipe, batch, cpu) > 2 * activation_bytes(calm, recipe, batch, cpu)
    assert activation_bytes(shape, recipe, batch, gpu) == activation_bytes(calm, recipe, batch, gpu)


@pytest.mark.parametrize("name", ["distilbert", "google/mobilebert-uncased"])
def test_presets_are_planned_by_every_name(name: str, tmp_path: Path) -> None:
    assert plan(AdapterRecipe(model=name), device=Device("cpu", 2**40)).fits
