"""The weights that an adapter starts with, where these are not PEFT's default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from peft import EvaConfig, LoraConfig, initialize_lora_eva_weights, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.eva import prepare_layer_inputs_fn_language_modeling
from safetensors.torch import load_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from finetune.errors import InputError
from finetune.models.quantize import unpack_weight
from finetune.recipe import AdapterRecipe
from finetune.train.init_adapter import WEIGHTS
from finetune.train.objectives.objective import Objective

EVA_ROWS = 256  # the first training rows, whose inputs of each layer give the directions


def start_adapter(model: Any, objective: Objective, recipe: AdapterRecipe) -> None:
    """Give the LoRA layers of a model their first weights, and let the objective remember them.

    It comes after `objective.begin`, which compares the model with the untouched one while these layers have no effect.
    PiSSA has none at first, so PEFT has applied it when it made the layers.
    """
    with torch.random.fork_rng(devices=[]):
        if recipe.init_adapter is not None:
            tensors = load_file(Path(recipe.init_adapter).expanduser() / WEIGHTS)
            set_peft_model_state_dict(model, tensors)
        elif recipe.init_lora_weights == "loftq":
            correct_quantization(model)
        elif recipe.init_lora_weights == "eva":
            follow_data(model, objective, recipe)
    objective.remember_start(model)


def correct_quantization(model: Any) -> None:
    """LoftQ (Li et al. 2023, arXiv 2310.08659) in one iteration: the matrices start as the best correction of the base.

    One iteration leaves the quantised weights as they are, so the adapter fits the base that slmtune loads at any time.
    """
    base = model.get_base_model()
    original: Any = type(base).from_pretrained(base.name_or_path, dtype="auto", local_files_only=True)
    for name, layer in base.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        weights: Any = original.get_submodule(name)
        full = weights.weight.t() if isinstance(weights, Conv1D) else weights.weight
        quantized = unpack_weight(layer.get_base_layer()).float()
        error = full.detach().to(quantized) - quantized
        rank = layer.r["default"]
        left, sizes, right = torch.linalg.svd(error, full_matrices=False)
        root = (sizes[:rank] / layer.scaling["default"]).sqrt()
        lora_a: Any = layer.lora_A["default"]
        lora_b: Any = layer.lora_B["default"]
        lora_a.weight.data.copy_(root[:, None] * right[:rank])
        lora_b.weight.data.copy_(left[:, :rank] * root)


def follow_data(model: Any, objective: Objective, recipe: AdapterRecipe) -> None:
    """EVA (Paischer et al. 2024, arXiv 2410.07170): the rows of each matrix A start as main directions of the layer's input.

    Every layer keeps its rank, so that memory is as planned.

    Raises:
        InputError: a pass has fewer tokens than the rank.
    """
    size = recipe.per_device_train_batch_size
    count = min(len(objective.rows.training), EVA_ROWS)
    numbers = [range(start, min(start + size, count)) for start in range(0, count, size)]
    batches = [_Batch(objective.collate([{"number": number} for number in part])) for part in numbers]
    batches = [batch for batch in batches if batch.tokens >= batches[0].tokens / 2]  # not a last one of a row or two
    rank = max([recipe.lora_r, *recipe.rank_pattern.values()])
    if min(batch.tokens for batch in batches) < rank:
        raise InputError(
            f"--init-lora-weights eva: a forward pass of {size} rows has fewer tokens than the rank, {rank}. Lower --lora-r, "
            "or raise --per-device-train-batch-size"
        )

    config = model.peft_config["default"]
    config.init_lora_weights, config.eva_config = "eva", EvaConfig(rho=1.0, use_label_mask=False)

    def forward(model: Any, batch: _Batch) -> None:
        with torch.no_grad():
            objective.loss(model, batch.values)

    initialize_lora_eva_weights(
        model,
        batches,
        forward_fn=forward,
        prepare_model_inputs_fn=lambda batch, config: batch.places,
        prepare_layer_inputs_fn=prepare_layer_inputs_fn_language_modeling,
        gather_distributed_inputs=False,  # every process has the same rows
        show_progress_bar=False,
    )
    objective.take_figures()
    model.train()


class _Batch:
    """A batch that PEFT moves to the device as a whole."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        inputs = values.get("inputs", values)
        ids: Tensor = inputs["input_ids"]
        mask = torch.ones_like(ids) if "layout" in inputs else inputs["attention_mask"]
        self.places = mask.nonzero()  # of tokens that are not padding
        self.tokens = len(self.places)

    def to(self, device: Any) -> _Batch:
        """This batch on `device`."""
        return _Batch(send_to_device(self.values, device))


def fit_untouched_base(
    tensors: Mapping[str, Tensor], first: Mapping[str, Tensor], config: LoraConfig
) -> dict[str, Tensor]:
    """The matrices of PiSSA in the form that fits the untouched base model, of twice the rank; changes `config` accordingly.

    Training has W − s·B₀A₀ in the place of W. W − s·B₀A₀ + s·BA is W + s·[B, B₀][A, −A₀].
    """
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    config.rank_pattern = {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()}
    config.alpha_pattern = {name: 2 * alpha for name, alpha in (config.alpha_pattern or {}).items()}
    joined = {}
    for name, tensor in tensors.items():
        if "lora_A" in name:
            joined[name] = torch.cat([tensor, -first[name]], 0)
        if "lora_B" in name:
            joined[name] = torch.cat([tensor, first[name]], 1)
    return joined
