"""Several adapters of one base model become one, as PEFT's `add_weighted_adapter` combines them, without loading the base."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft.utils.merge_utils import dare_linear, dare_ties, task_arithmetic, ties
from safetensors.torch import save_file
from torch import Tensor

from finetune.artifacts import Adapter, write_json
from finetune.errors import BaseModelError, InputError
from finetune.merge.request import MergeRequest
from finetune.merge.weights.matrices import PREFIX, AdapterWeights, Matrices, read_weights, require_trained_scale
from finetune.models.heads import build_skeleton
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import SEED

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
COMBINE: dict[str, Callable[[list[Tensor], Tensor, float], Tensor]] = {
    "linear": lambda tensors, weights, density: task_arithmetic(tensors, weights),
    "ties": ties,
    "dare_linear": dare_linear,
    "dare_ties": dare_ties,
}


def require_combinable(adapters: Sequence[Adapter], weights: Sequence[float]) -> None:
    """Refuse adapters that cannot become one, before any work.

    Raises:
        InputError: there is not one weight per adapter, or an adapter has parts that cannot be weighted.
        BaseModelError: they were trained on different base models, or over different forms of one.
    """
    if weights and (len(weights) != len(adapters) or not all(map(math.isfinite, weights))):
        raise InputError(
            f"--weights has {len(weights)} numbers for {len(adapters)} adapters. Give one number per adapter, such as 0.7,0.3"
        )
    if len(adapters) == 1:
        if weights:
            raise InputError("--weights combines several adapters, and only one is given. Name the others, too")
        return
    first, recipes = adapters[0], [AdapterRecipe.model_validate(adapter.config) for adapter in adapters]
    for adapter, recipe in zip(adapters, recipes, strict=True):
        if adapter.manifest.get("head"):
            raise InputError(
                f"{adapter.path} is of an encoder, whose head is trained whole, so heads cannot be weighted"
            )
        if recipe.use_dora or recipe.modules_to_save:
            part = "norms of rows (DoRA)" if recipe.use_dora else "modules that were trained whole"
            raise InputError(
                f"{adapter.path} has {part}, which cannot be weighted. Combine adapters of LoRA matrices alone"
            )
        if _base(adapter) != _base(first) or _form(recipe) != _form(recipes[0]):
            raise BaseModelError(
                f"{adapter.path} and {first.path} were trained on different base models, or over different forms of its "
                "weights (--quantization, --compute-dtype). Combine adapters of one base model"
            )
        if (recipe.lora_r, recipe.rank_pattern) != (recipes[0].lora_r, recipes[0].rank_pattern):
            raise InputError(
                f"{adapter.path} has rank {recipe.lora_r} and {first.path} rank {recipes[0].lora_r}, or other ranks by name. "
                "Combine adapters of the same ranks"
            )


def combine_adapters(adapters: Sequence[Adapter], base: Path, request: MergeRequest, out: Path) -> AdapterRecipe:
    """Write the combination as an adapter of PEFT to the folder `out`; returns the recipe that describes it.

    Its matrices are those of PEFT. For "cat", they stand side by side, so that their product is the weighted sum. Otherwise,
    `sqrt(|weight × scale|)` times each A and each B are combined one by one, so that those of different adapters are
    multiplied with each other, too. The random numbers of DARE start from a fixed seed.

    Raises:
        InputError: the adapters have matrices for different layers.
    """
    weights = request.weights or [1 / len(adapters)] * len(adapters)
    parts = []
    for adapter in adapters:
        require_trained_scale(adapter.path, AdapterRecipe.model_validate(adapter.config))
        parts.append(read_weights(build_skeleton(base, None), adapter.path))
    _require_same_layers(adapters, parts)
    shutil.copytree(adapters[0].path, out)
    tensors: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for path in parts[0].matrices:
            layers = [part.matrices[path] for part in parts]
            a, b = _combine_layer(layers, weights, request)
            names = (
                ("lora_embedding_A", "lora_embedding_B")
                if layers[0].is_embedding
                else ("lora_A.weight", "lora_B.weight")
            )
            tensors |= {f"{PREFIX}{path}.{name}": tensor for name, tensor in zip(names, (a, b), strict=True)}
    save_file(tensors, out / WEIGHTS, {"format": "pt"})
    recipe = AdapterRecipe.model_validate(adapters[0].config)
    times = len(adapters) if request.combination == "cat" else 1
    ranks = {name: rank * times for name, rank in recipe.rank_pattern.items()}
    config = {"r": recipe.lora_r * times, "lora_alpha": recipe.lora_r * times, "rank_pattern": ranks}  # a scale of 1
    config |= {"alpha_pattern": ranks, "use_rslora": False}
    write_json(out / CONFIG, json.loads((out / CONFIG).read_text("utf-8")) | config)
    return recipe.model_copy(update={"lora_r": config.pop("r"), **config})


def _combine_layer(
    layers: Sequence[Matrices], weights: Sequence[float], request: MergeRequest
) -> tuple[Tensor, Tensor]:
    """The matrices A and B of one layer, to be multiplied with a scale of 1."""
    factors = [weight * layer.scale for weight, layer in zip(weights, layers, strict=True)]
    if request.combination == "cat":
        scaled = [layer.a * factor for layer, factor in zip(layers, factors, strict=True)]
        return torch.cat(scaled), torch.cat([layer.b for layer in layers], 1)
    combine, density = COMBINE[request.combination], request.density
    roots = torch.tensor([math.sqrt(abs(factor)) for factor in factors])
    signs = torch.tensor([1.0 if factor >= 0 else -1.0 for factor in factors])
    a = combine([layer.a for layer in layers], roots * signs, density)
    return a.contiguous(), combine([layer.b for layer in layers], roots, density).contiguous()


def _require_same_layers(adapters: Sequence[Adapter], parts: Sequence[AdapterWeights]) -> None:
    for adapter, part in zip(adapters, parts, strict=True):
        if other := sorted(set(part.matrices) ^ set(parts[0].matrices)):
            raise InputError(
                f"{adapter.path} and {adapters[0].path} have matrices for different layers: only one of them has those of "
                f"{other[0]}. Combine adapters that were trained with the same --target-modules"
            )


def _base(adapter: Adapter) -> tuple[object, ...]:
    base = adapter.manifest["parents"]["base_model"]
    return base["fingerprint"], base.get("config_fingerprint")


def _form(recipe: AdapterRecipe) -> tuple[str, str]:
    return recipe.quantization, recipe.compute_dtype
