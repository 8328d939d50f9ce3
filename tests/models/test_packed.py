"""Weights are quantised once on a CPU: a later load reads the same bits, unless the model has changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from finetune.kept import FACTS
from finetune.machine import cache_folder
from finetune.models import packed
from finetune.models.load import load, load_base
from finetune.models.packed import load_packed
from finetune.recipe import AdapterRecipe

IDS = torch.arange(12)[None]


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the weights of tiny models as well, in an empty cache."""
    monkeypatch.setattr(packed, "LEAST_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def quantised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that weights were quantised."""
    import finetune.models.load as module

    calls: list[int] = []

    def record(folder: Path, kind: Any, dtype: torch.dtype, quantize: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        def call() -> PreTrainedModel:
            calls.append(1)
            model: PreTrainedModel = quantize()
            return model

        return load_packed(folder, kind, dtype, call)

    monkeypatch.setattr(module, "load_packed", record)
    return calls


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> Path:
    """A tiny model; the layers of GPT-2 have transposed weights."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    if request.param == "gpt2":
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=400, n_embd=64, n_layer=2, n_head=4, n_positions=64)
        GPT2LMHeadModel(config).save_pretrained(model)
    return model


def bits(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of a model, also the scales of packed weights."""
    for name, parameter in model.named_parameters():
        yield name, parameter
        if (state := getattr(parameter, "quant_state", None)) is not None:
            yield f"{name} scales", state.absmax
            yield f"{name} shape", torch.tensor(state.shape)
    yield from model.named_buffers()


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
@pytest.mark.parametrize("unpack", [False, True])
def test_kept_weights_are_those_that_were_quantised(
    quantization: str, unpack: bool, folder: Path, quantised: list[int]
) -> None:
    recipe = AdapterRecipe.model_validate({"model": str(folder), "quantization": quantization})
    first, second = (load_base(folder, recipe, unpack=unpack) for _ in range(2))
    assert len(quantised) == 1
    one, other = dict(bits(first)), dict(bits(second))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name
    assert torch.equal(first(input_ids=IDS).logits, second(input_ids=IDS).logits)
    assert first.name_or_path == second.name_or_path == second.config.name_or_path == str(folder)
    assert first.generation_config.to_dict() == second.generation_config.to_dict()
    assert first.config._attn_implementation == second.config._attn_implementation


def load_tiny(model: Path, **settings: Any) -> Any:
    return load_base(model, AdapterRecipe.model_validate({"model": str(model), **settings}), unpack=False)


@pytest.fixture
def copied(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.mark.parametrize("change", ["weights", "date", "settings", "precision", "form"])
def test_changed_model_is_quantised_anew(change: str, copied: Path, quantised: list[int]) -> None:
    load_tiny(copied)
    settings = {}
    if change == "weights":
        model = AutoModelForCausalLM.from_pretrained(copied)
        model.model.layers[1].mlp.up_proj.weight.data *= 2
        model.save_pretrained(copied)
    elif change == "date":  # a change that no sample covers
        os.utime(copied / "model.safetensors", ns=(0, 0))
    elif change == "settings":
        config = json.loads((copied / "config.json").read_text("utf-8"))
        (copied / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}), "utf-8")
    elif change == "precision":
        settings = {"compute_dtype": "bfloat16"}
    else:
        settings = {"quantization": "fp4"}
    load_tiny(copied, **settings)
    assert len(quantised) == 2


@pytest.mark.parametrize("file", ["model.safetensors", FACTS])
def test_damaged_kept_weights_are_quantised_anew(file: str, copied: Path, quantised: list[int]) -> None:
    expected = load_tiny(copied)(input_ids=IDS).logits
    (damaged,) = (cache_folder() / "packed").glob(f"*/{file}")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert all(torch.equal(load_tiny(copied)(input_ids=IDS).logits, expected) for _ in range(2))
    assert len(quantised) == 2


def test_weights_that_cannot_be_kept_cost_only_time(
    copied: Path, quantised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(*arguments: object, **options: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fill_disk)
    assert torch.equal(*(load_tiny(copied)(input_ids=IDS).logits for _ in range(2)))
    assert len(quantised) == 2
    assert not [*(cache_folder() / "packed").iterdir()]


def test_kept_weights_unpack_to_plain_layers(copied: Path, quantised: list[int]) -> None:
    from finetune.models.find import find_base

    base, recipe = find_base(str(copied)), AdapterRecipe(model=str(copied))
    one, other = (load(base, recipe, must_unpack=True).model for _ in range(2))
    assert len(quantised) == 1
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert not hasattr(other.config, "quantization_config")
