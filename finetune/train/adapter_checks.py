"""Checks, before weights are loaded, that a base model can have the adapter of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finetune.errors import InputError
from finetune.models.heads import Head
from finetune.models.targets import ALL, build_empty, is_target, list_layers, nearest_names, require_targets
from finetune.recipe import AdapterRecipe

BY_PEFT = {"embed_tokens", "lm_head"}  # names of tied layers that PEFT trains as one


def check_adapter(folder: Path, recipe: AdapterRecipe, head: Head | None = None) -> None:
    """Refuse modules and patterns without a layer, and what cannot be quantised, trained or merged.

    Raises:
        InputError: names the setting, and one that works.
    """
    model = build_empty(folder, head)
    if model is None:
        return  # loading the model reports it
    layers = list_layers(model)
    if recipe.target_modules != ALL:
        require_targets(recipe.target_modules, layers)
    _check_patterns(recipe, layers)
    tied = find_tied(model)
    _check_ends(recipe, model, tied)
    _check_saved(recipe, model, tied)
    _check_quantization(recipe, model, folder.name)
    _check_start(recipe, model, head)


def find_tied(model: Any) -> list[str]:
    """The paths of the input embeddings and the output head, if these are one matrix; else nothing."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if ends[1] is None or not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return []
    return [name for name, module in model.named_modules() if any(module is end for end in ends)]


def find_saved(names: Iterable[str], paths: Iterable[str]) -> dict[str, list[str]]:
    """The modules of each name of `modules_to_save`: those whose path ends with it, as PEFT has it."""
    known = list(paths)
    return {name: [path for path in known if path.endswith(name)] for name in names}


def _check_patterns(recipe: AdapterRecipe, layers: list[str]) -> None:
    targets = [path for path in layers if is_target(recipe.target_modules, path)]
    patterns: Mapping[str, Mapping[str, int]] = {
        "--rank-pattern": recipe.rank_pattern,
        "--alpha-pattern": recipe.alpha_pattern,
    }
    for flag, pattern in patterns.items():
        for name in pattern:
            if not any(is_target(rf"(.*\.)?({name})", path) for path in targets):
                raise InputError(
                    f"{flag} {name}={pattern[name]}: no layer with LoRA matrices is called {name}."
                    f"{nearest_names([name], targets)}; those of --target-modules have them"
                )


def _check_ends(recipe: AdapterRecipe, model: Any, tied: list[str]) -> None:
    head = model.get_output_embeddings()
    ends = tied or [name for name, module in model.named_modules() if module is head]
    names = [] if recipe.target_modules == ALL else [path for path in ends if is_target(recipe.target_modules, path)]
    if names:
        reason = (
            "is its embeddings and its output head at once, so that matrices for one of them could not be merged"
            if tied
            else "is its output head, whose weights the loss reads directly, so that matrices for it would not be trained"
        )
        raise InputError(
            f"--target-modules: {names[0]} of this model {reason}. Leave it out, or train it whole with --modules-to-save "
            f"{ends[0].rpartition('.')[2]}"
        )


def _check_saved(recipe: AdapterRecipe, model: Any, tied: list[str]) -> None:
    modules = {name: module for name, module in model.named_modules() if name}
    for name, paths in find_saved(recipe.modules_to_save, modules).items():
        flag = f"--modules-to-save {name}"
        trainable = [path for path in paths if any(True for _ in modules[path].parameters())]
        if not trainable:
            raise InputError(f"{flag}: no module with weights has that name.{nearest_names([name], modules)}")
        path = trainable[0]
        if any(True for _ in modules[path].children()):
            raise InputError(f"{flag}: {path} contains other modules. Name those that are to be trained whole")
        if path in tied and path.rpartition(".")[2] not in BY_PEFT:
            raise InputError(
                f"{flag}: {path} is the embeddings and the output head at once, under names that PEFT does not train as "
                "one. Leave it out"
            )
        if recipe.is_quantized and _is_linear(modules[path]) and modules[path] is not model.get_output_embeddings():
            raise InputError(
                f"{flag}: {path} is quantised to {recipe.quantization}, and such weights cannot be trained. Leave it out, or "
                "add --quantization none"
            )


def _check_quantization(recipe: AdapterRecipe, model: Any, name: str) -> None:
    """Refuse to quantise a model most of whose weights are in modules that bitsandbytes leaves as they are."""
    if not recipe.is_quantized:
        return
    linear = sum(module.weight.numel() for module in model.modules() if _is_linear(module))
    stacks: dict[str, int] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            if weight.dim() > 2:
                stacks[type(module).__name__] = stacks.get(type(module).__name__, 0) + weight.numel()
    rest = sum(stacks.values())
    if rest > linear:
        raise InputError(
            f"--quantization {recipe.quantization}: {rest / (rest + linear):.0%} of the weights of the layers of {name} are "
            f"in {', '.join(sorted(stacks))}, which bitsandbytes does not quantise: only linear layers. Train it with "
            "--quantization none"
        )


def _check_start(recipe: AdapterRecipe, model: Any, head: Head | None) -> None:
    kind = recipe.init_lora_weights
    if kind == "default":
        return
    flag = f"--init-lora-weights {kind}"
    if kind == "pissa" and recipe.is_quantized:
        raise InputError(
            f"{flag} takes the largest directions out of the base model's weights, which must not be quantised to "
            f"{recipe.quantization} for that (PEFT refuses it, too). Add --quantization none, or start a quantised base with "
            "loftq or eva"
        )
    if kind == "loftq" and not recipe.is_quantized:
        raise InputError(
            f"{flag} corrects the errors of quantisation, and with --quantization none there are none. Add --quantization nf4, "
            "or leave it out"
        )
    if kind == "loftq" and getattr(model.config, "quantization_config", None):
        raise InputError(
            f"{flag} needs the weights before quantisation, and the files of this base model have been quantised already. "
            "Use its unquantised original as --model"
        )
    others = {"use_dora": kind != "eva", "use_rslora": kind == "pissa"}
    for name in (name for name, excluded in others.items() if excluded and getattr(recipe, name)):
        raise InputError(f"{flag} and --{name.replace('_', '-')} cannot be combined. Leave one of them out")
    if kind == "eva" and head is not None:
        raise InputError(
            f"{flag} is for causal language models, and this is an encoder. Use pissa or loftq, or leave it out"
        )
    for name, module in model.named_modules():
        if is_target(recipe.target_modules, name) and recipe.target_modules != ALL and _has_rows(module):
            raise InputError(f"{flag}: {name} is no linear layer. Leave it out of --target-modules")


def _has_rows(module: Any) -> bool:
    from torch import nn

    return isinstance(module, nn.Embedding)


def _is_linear(module: Any) -> bool:
    from torch import nn  # here: most errors come sooner
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (nn.Linear, Conv1D))
