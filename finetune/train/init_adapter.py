"""An adapter to start from: an artifact or a folder of PEFT, checked against base model and recipe before weights load."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from finetune.artifacts import Adapter, read_manifest, sha256_of
from finetune.errors import BaseModelError, InputError
from finetune.models.find import BaseModel
from finetune.models.heads import Head, build_skeleton, head_modules
from finetune.models.structure import has_transposed_weights
from finetune.models.targets import ALL, is_target, list_layers
from finetune.recipe import AdapterRecipe

log = logging.getLogger(__name__)

WEIGHTS = "adapter_model.safetensors"
# Settings of PEFT that a recipe has too, or that do not change what an adapter computes. Any other one that is set is refused.
ADOPTED = {
    "lora_r": "r",
    "lora_alpha": "lora_alpha",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
}
HARMLESS = {
    *(
        "peft_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "task_type",
        "inference_mode",
    ),
    *("target_modules", "modules_to_save", "exclude_modules", "lora_dropout", "fan_in_fan_out", "ensure_weight_tying"),
    *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "runtime_config"),
    *("megatron_core", "qalora_group_size"),
}


def adopt_adapter(
    recipe: AdapterRecipe, base: BaseModel, head: Head | None
) -> tuple[AdapterRecipe, dict[str, str] | None]:
    """The recipe with the settings of the adapter that it starts from, and the adapter's name and fingerprint.

    Raises:
        InputError: there is no such adapter, it has settings that slmtune does not train or that the recipe contradicts, or
            its tensors do not fit the base model.
        BaseModelError: it was trained on another base model.
        ArtifactError: it is damaged.
    """
    if recipe.init_adapter is None:
        return recipe, None
    folder = Path(recipe.init_adapter).expanduser()
    fingerprint = _check_origin(folder, base, head)
    config = _read_config(folder)
    adopted = _adopt(recipe, config, folder, base, head)
    _check_tensors(folder, config, base, head)
    return adopted, {"name": folder.resolve().name, "fingerprint": fingerprint}


def _check_origin(folder: Path, base: BaseModel, head: Head | None) -> str:
    """The fingerprint of an adapter that belongs to the base model, as far as it tells."""
    if read_manifest(folder) is None:
        if not (folder / "adapter_config.json").is_file() or not (folder / WEIGHTS).is_file():
            raise InputError(
                f"--init-adapter {folder}: there is no adapter. It needs adapter_config.json and {WEIGHTS}, as PEFT and "
                "slmtune write them"
            )
        log.warning(
            "%s does not say which weights it was trained on: only its tensors are compared with the model.", folder
        )
        return sha256_of(folder / WEIGHTS)
    adapter = Adapter.open(folder)
    parent = adapter.manifest["parents"]["base_model"]
    if parent["fingerprint"] != base.fingerprint:
        raise BaseModelError(
            f"--init-adapter {folder} was trained on {parent['name']} (weights {parent['fingerprint'][:12]}), but {base.name} "
            f"has weights {base.fingerprint[:12]}. Start from an adapter of {base.name}, or pass --model {parent['name']}"
        )
    theirs = Head.of_manifest(adapter.manifest)
    if theirs != head:
        raise InputError(
            f"--init-adapter {folder} has another head: it predicts {_describe(theirs)}, and this corpus has "
            f"{_describe(head)}. Use a corpus with the same task and labels, or start without it"
        )
    return adapter.fingerprint


def _describe(head: Head | None) -> str:
    return "text" if head is None else " ".join([head.kind, *([f"({', '.join(head.labels)})"] if head.labels else [])])


def _read_config(folder: Path) -> Any:
    from peft import LoraConfig, PeftConfig  # here: most errors come sooner

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"--init-adapter {folder}: its adapter_config.json cannot be read: {error}") from None
    if not isinstance(config, LoraConfig):
        raise InputError(
            f"--init-adapter {folder} is a {config.peft_type} adapter. slmtune goes on with LoRA adapters only"
        )
    defaults = LoraConfig()
    known = {*ADOPTED.values(), *HARMLESS}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in known and value and value != getattr(defaults, field.name):
            raise InputError(
                f"--init-adapter {folder} has {field.name}: {value} in its adapter_config.json, which slmtune does not train"
            )
    return config


def _adopt(recipe: AdapterRecipe, config: Any, folder: Path, base: BaseModel, head: Head | None) -> AdapterRecipe:
    targets = config.target_modules
    model = build_skeleton(base.folder, head)
    paths = [path for path, _ in model.named_modules()]
    heads = head_modules(model) if head else ()
    whole = {  # PEFT adds names of heads that the model does not have
        name
        for name in config.modules_to_save or ()
        if name not in heads and any(path.endswith(name) for path in paths)
    }
    if not isinstance(targets, str):  # PEFT lists those of the head as well, and leaves them out
        layers = [path for path in list_layers(model) if not path.startswith(heads)]
        targets = [name for name in targets if any(is_target((name,), path) for path in layers)] or targets
    values: Mapping[str, Any] = {name: getattr(config, theirs) for name, theirs in ADOPTED.items()} | {
        "target_modules": targets if isinstance(targets, str) else tuple(sorted(targets)),
        "modules_to_save": tuple(sorted(whole)),
    }
    contradictions = []
    for name, value in values.items():
        ours = getattr(recipe, name)
        same = set(ours) == set(value) if isinstance(ours, tuple) and isinstance(value, tuple) else ours == value
        if name in recipe.model_fields_set and not same and ours != ALL:
            contradictions.append(f"{name} is {value} and not {ours}")
    if recipe.init_lora_weights != "default":
        contradictions.append(f"it has weights already, so init_lora_weights {recipe.init_lora_weights} has no place")
    if contradictions:
        raise InputError(
            f"--init-adapter {folder} contradicts the recipe: {'; '.join(contradictions)}. Leave these settings out: those of "
            "the adapter are taken"
        )
    return recipe.model_copy(update=dict(values))


def _check_tensors(folder: Path, config: Any, base: BaseModel, head: Head | None) -> None:
    """Compare names and shapes of the tensors with those that PEFT makes for the base model."""
    from peft import get_peft_model, get_peft_model_state_dict

    model = build_skeleton(base.folder, head)
    config.inference_mode, config.init_lora_weights, config.eva_config = False, True, None
    config.fan_in_fan_out = has_transposed_weights(model)
    problem = f"--init-adapter {folder} does not fit {base.name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what will not happen: this model is thrown away
            adapted: Any = get_peft_model(model, config, low_cpu_mem_usage=True)
        with safe_open(folder / WEIGHTS, framework="pt") as tensors:
            stored = {name: tuple(tensors.get_slice(name).get_shape()) for name in list(tensors.keys())}
    except ValueError as error:  # no such module
        raise InputError(f"{problem}: {str(error).splitlines()[0]}") from None
    except SafetensorError:
        raise InputError(f"--init-adapter {folder}: its {WEIGHTS} is damaged. Get the adapter again") from None
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if stored == shapes:
        return
    names = sorted(name for name in {*stored, *shapes} if stored.get(name) != shapes.get(name))
    first = names[0]
    raise InputError(
        f"{problem}: {len(names)} tensors differ, such as {first}, which is {_shape(stored.get(first))} in the adapter and "
        f"would be {_shape(shapes.get(first))} for the model. Start from an adapter of this base model"
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " × ".join(map(str, shape))
