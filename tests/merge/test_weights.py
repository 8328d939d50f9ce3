"""The stored weights are bit for bit those that PEFT makes, with little memory, or they are refused."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from finetune.errors import CheckFailedError
from finetune.merge.weights import plan
from finetune.merge.weights.matrices import Matrices
from finetune.merge.weights.plan import Planned, plan_weights, split_shards
from finetune.merge.weights.replay import Replay, replay_weights
from finetune.merge.weights.write import write_weights
from finetune.models.heads import build_skeleton
from finetune.models.load import load_base
from finetune.models.quantize import Rounding, rounding_of, unpack_layers
from finetune.recipe import AdapterRecipe
from finetune.recipe.adapter import Quantization

from ..command import ROOT, processes
from ..encoders import NEWS, write_encoder, write_encoder_adapter
from ..train.families import FAMILIES, SHAPE, Family

Shards = dict[str, list[Planned]]
BASE, ADAPTER = "base", "adapter"


def write_family(folder: Path, family: Family) -> Any:
    torch.manual_seed(0)
    tokens = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = {} if family.kind == "gpt2" else SHAPE
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.kind, **tokens | shape | family.config))
    model.save_pretrained(folder / BASE)
    return model


def write_adapter(folder: Path, model: Any, **settings: Any) -> Path:
    settings = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    config = LoraConfig(r=4, fan_in_fan_out=model.config.model_type == "gpt2", **settings)
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1 if "modules_to_save" in name else 0.3)
    adapted.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
    return folder / ADAPTER


def rounding(folder: Path, kind: Quantization) -> Rounding | None:
    return None if kind == "none" else rounding_of(build_skeleton(folder / BASE, None), kind, torch.float32)


def merge(folder: Path, kind: Quantization = "none") -> Shards:
    shards = split_shards(plan_weights(folder / BASE, None, folder / ADAPTER))
    (folder / "merged").mkdir()
    write_weights(shards, folder / "merged", rounding(folder, kind))
    shutil.copy(folder / BASE / "config.json", folder / "merged")
    return shards


def replay(folder: Path, shards: Shards, kind: Quantization = "none") -> Replay:
    skeleton = build_skeleton(folder / BASE, None)
    return replay_weights(shards, folder / "merged", skeleton, folder / ADAPTER, rounding(folder, kind))


def require_equal_to_peft(folder: Path, kind: Quantization = "none") -> None:
    base = load_base(folder / BASE, AdapterRecipe(model="base", quantization=kind), unpack=False)
    unpack_layers(base)
    expected = PeftModel.from_pretrained(base, str(folder / ADAPTER)).merge_and_unload().state_dict()
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged").state_dict()
    assert set(merged) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["none", "nf4"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_weights_of_every_family_equal_those_of_peft(
    family: Family, kind: Quantization, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SHARD_BYTES", 30_000)
    model = write_family(tmp_path, family)
    settings: dict[str, Any] = {"exclude_modules": ["out_proj"]} if family.kind == "falcon_h1" else {}
    if family.kind not in ("gpt2", "phi3"):
        settings |= {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 5}}
    write_adapter(tmp_path, model, use_rslora=True, **settings)
    shards = merge(tmp_path, kind)
    assert len(shards) > 1
    assert replay(tmp_path, shards, kind).merged > 0
    require_equal_to_peft(tmp_path, kind)


TRAINED: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "DoRA of embeddings": {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    "whole modules": {"modules_to_save": ["lm_head", "norm"]},
    "biases": {"bias": "all"},
}


@pytest.mark.parametrize("kind", ["none", "int8"])
@pytest.mark.parametrize("settings", TRAINED.values(), ids=TRAINED)
def test_whatever_an_adapter_trains_is_merged(settings: dict[str, Any], kind: Quantization, tmp_path: Path) -> None:
    qwen = next(family for family in FAMILIES if family.kind == "qwen2")
    write_adapter(tmp_path, write_family(tmp_path, qwen), **settings)
    replay(tmp_path, merge(tmp_path, kind), kind)
    require_equal_to_peft(tmp_path, kind)


def test_dora_of_transposed_weights_is_merged(tmp_path: Path) -> None:
    gpt2 = next(family for family in FAMILIES if family.kind == "gpt2")
    write_adapter(tmp_path, write_family(tmp_path, gpt2), use_dora=True)
    replay(tmp_path, merge(tmp_path, "nf4"), "nf4")
    require_equal_to_peft(tmp_path, "nf4")


def test_tied_embeddings_that_were_trained_stay_tied(tmp_path: Path) -> None:
    smollm = next(family for family in FAMILIES if family.name == "SmolLM2")
    write_adapter(tmp_path, write_family(tmp_path, smollm), modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    replay(tmp_path, merge(tmp_path))
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    trained = load_file(tmp_path / ADAPTER / "adapter_model.safetensors")["base_model.model.model.embed_tokens.weight"]
    assert torch.equal(merged.lm_head.weight, trained)
    assert torch.equal(merged.model.embed_tokens.weight, trained)


def test_weights_of_an_encoder_without_prefix_equal_those_of_peft(tmp_path: Path) -> None:
    base = write_encoder(tmp_path / BASE, "bert")
    adapter = write_encoder_adapter(tmp_path / ADAPTER, base, NEWS)
    stored = load_file(base / "model.safetensors")
    bare = {name.removeprefix("bert."): tensor for name, tensor in stored.items() if name.startswith("bert.")}
    save_file(bare, base / "model.safetensors", {"format": "pt"})
    shards = split_shards(plan_weights(base, NEWS, adapter))
    (tmp_path / "merged").mkdir()
    write_weights(shards, tmp_path / "merged")
    assert replay_weights(shards, tmp_path / "merged", build_skeleton(base, NEWS), adapter).merged > 0
    plain = NEWS.auto_class.from_pretrained(base, **NEWS.config)
    expected = PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload().state_dict()
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert set(merged) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-5, rtol=0)


def scale(factor: float) -> Callable[[list[Planned]], list[Planned]]:
    return lambda planned: [
        one if one.matrices is None else replace(one, matrices=replace(one.matrices, scale=one.matrices.scale * factor))
        for one in planned
    ]


def leave_one_out(planned: list[Planned]) -> list[Planned]:
    last = max(number for number, one in enumerate(planned) if one.matrices is not None)
    return [replace(one, matrices=None) if number == last else one for number, one in enumerate(planned)]


def shuffle(planned: list[Planned]) -> list[Planned]:
    """Exchange the matrices of two layers of the same shape."""
    first, second = (number for number, one in enumerate(planned) if one.parameter.endswith("q_proj.weight"))
    swapped = {first: planned[second].matrices, second: planned[first].matrices}
    return [replace(one, matrices=swapped.get(number, one.matrices)) for number, one in enumerate(planned)]


WRONG: dict[str, Callable[[list[Planned]], list[Planned]]] = {
    "scale times 1.001": scale(1.001),
    "alpha for another rank": scale(0.5),
    "one layer left out": leave_one_out,
    "shuffled keys": shuffle,
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_wrong_merge_is_found_in_the_weights(spoil: Callable[[list[Planned]], list[Planned]], tmp_path: Path) -> None:
    write_adapter(tmp_path, write_family(tmp_path, FAMILIES[0]))
    (tmp_path / "merged").mkdir()
    right = plan_weights(tmp_path / BASE, None, tmp_path / ADAPTER)
    write_weights(split_shards(spoil(right)), tmp_path / "merged")
    with pytest.raises(CheckFailedError, match="is not what base and adapter give"):
        replay(tmp_path, split_shards(right))
    with pytest.raises(CheckFailedError, match="The merged weights are not those of the adapter"):
        replay(tmp_path, split_shards(spoil(right)))


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    write_adapter(tmp_path, write_family(tmp_path, FAMILIES[0]))
    shards = merge(tmp_path)
    file = tmp_path / "merged" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckFailedError, match="is not what base and adapter give"):
        replay(tmp_path, shards)


LAYERS, WIDTH = 12, 1024
SLACK = 368 * 2**20  # for the sums of one layer in float32, and what libraries load and allocate meanwhile


def write_large(folder: Path) -> int:
    """A model of several hundred megabytes with an adapter; returns the bytes of its weights."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        max_position_embeddings=64,
        dtype=torch.bfloat16,
    )
    model = LlamaForCausalLM(config).bfloat16()
    model.save_pretrained(folder / BASE, max_shard_size="50MB")
    size = sum(parameter.nbytes for parameter in model.parameters())
    write_adapter(folder, model)
    return size


def merge_with_little_memory(folder: str, allowed: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + allowed, used + allowed))
    replay(Path(folder), merge(Path(folder)))


def test_memory_is_that_of_one_layer(tmp_path: Path) -> None:
    size = write_large(tmp_path)
    assert size > SLACK
    process = processes.Process(target=merge_with_little_memory, args=(str(tmp_path), SLACK))
    with chdir(ROOT):  # where a server that has to be started finds the libraries
        process.start()
    process.join()
    assert process.exitcode == 0
    assert sum(path.stat().st_size for path in (tmp_path / "merged").glob("*.safetensors")) >= size


def test_dora_scales_rows_to_their_learned_norms() -> None:
    torch.manual_seed(0)
    weight, a, b, magnitude = torch.randn(6, 5), torch.randn(2, 5), torch.randn(6, 2), torch.rand(6)
    folded = Matrices(a, b, 0.5, is_transposed=False, magnitude=magnitude).fold(weight)
    torch.testing.assert_close(folded.norm(dim=1), magnitude)
    torch.testing.assert_close(folded / folded.norm(dim=1)[:, None], torch.nn.functional.normalize(weight + b @ a / 2))
