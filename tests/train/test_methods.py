"""Every method trains, resumes exactly, and makes an adapter that PEFT loads on the untouched base and merges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter
from finetune.errors import InputError
from finetune.evaluate import EvalRequest, evaluate
from finetune.merge import MergeRequest, distance, merge_adapter
from finetune.models.load import load_adapter
from finetune.recipe import AdapterRecipe
from finetune.train import Step, TrainRequest, train

METHODS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora-plain": {"use_dora": True, "quantization": "none", "lora_dropout": 0.1},
    "patterns": {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 8}, "alpha_pattern": {"v_proj": 16}},
    "saved-norm": {"modules_to_save": ("model.norm",)},
    "saved-embeddings": {"modules_to_save": ("embed_tokens",), "quantization": "int8"},
    "pissa": {"init_lora_weights": "pissa", "quantization": "none", "rank_pattern": {"q_proj": 2}},
    "eva": {"init_lora_weights": "eva", "rank_pattern": {"q_proj": 2}},
    "noise": {"neftune_noise_alpha": 5.0},
    "int8": {"quantization": "int8"},
    "fp4": {"quantization": "fp4"},
}
APART: dict[
    str, dict[str, Any]
] = {  # merged onto other weights, or rounded by more than two ways of computing may differ
    "loftq": {"init_lora_weights": "loftq"},
    "saved-bfloat16": {"modules_to_save": ("embed_tokens", "model.norm"), "compute_dtype": "bfloat16"},
}
IDS = torch.arange(3, 60)[None]


class Killed(Exception):
    """Ends a run after a step, without another checkpoint."""


def request(model: Path, corpus: Path, out: Path, **changes: Any) -> TrainRequest:
    settings = {"model": str(model), "max_steps": 5, "save_steps": 2, "eval_steps": 2, "lora_r": 4} | changes
    return TrainRequest(corpus, out, AdapterRecipe(learning_rate=1e-2, logging_steps=1, **settings))


def kill(progress: Step) -> None:
    if progress.step == 3:
        raise Killed


class Adapters(dict[str, Path]):
    """The adapter of each method, from a run that nothing stopped; trained when a test asks for it."""

    def __init__(self, model: Path, corpus: Path, folder: Path) -> None:
        self._model, self._corpus, self._folder = model, corpus, folder

    def __missing__(self, name: str) -> Path:
        settings = (METHODS | APART)[name]
        self[name] = train(request(self._model, self._corpus, self._folder / name, **settings)).adapter
        return self[name]


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapters:
    return Adapters(tiny_model, tiny_corpus, tmp_path_factory.mktemp("methods"))


@pytest.mark.parametrize("method", [*METHODS, *APART])
def test_killed_run_resumes_to_the_same_bytes(
    method: str, adapters: Adapters, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    first = request(tiny_model, tiny_corpus, tmp_path / "out", **(METHODS | APART)[method])
    with pytest.raises(Killed):
        train(first, kill)
    result = train(TrainRequest(first.corpus, first.output_dir, first.recipe, resume=True))
    assert result.resumed_from == "checkpoint-2"
    file = "adapter_model.safetensors"
    assert (result.adapter / file).read_bytes() == (adapters[method] / file).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_adapter_is_evaluated_merged_and_equals_that_of_peft(
    method: str,
    adapters: Adapters,
    tiny_model: Path,
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = adapters[method]
    short: dict[str, Any] = {"limit": 2, "max_new_tokens": 4, "forgetting": False}
    assert evaluate(EvalRequest(adapter, tiny_corpus, tmp_path / "eval", **short)).tasks
    monkeypatch.setattr(distance, "GREEDY_TOKENS", 2)
    assert merge_adapter(MergeRequest(adapter, tmp_path / "model", tiny_corpus, rows=4, onto="original")).verified
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    plain: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(adapter)).eval()
    untouched: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        assert float((plain(IDS).logits - untouched(IDS).logits).abs().max()) > 0.1
        torch.testing.assert_close(merged(IDS).logits, plain(IDS).logits, atol=1e-4, rtol=0)
    for name, tensor in plain.merge_and_unload().state_dict().items():
        torch.testing.assert_close(merged.state_dict()[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["patterns", "dora", "saved-norm", "saved-embeddings"])
def test_trained_weights_are_those_that_the_method_names(method: str, adapters: Adapters) -> None:
    shapes = {name: tuple(one.shape) for name, one in load_file(adapters[method] / "adapter_model.safetensors").items()}
    ranks = {name: shape[0] for name, shape in shapes.items() if "lora_A" in name}
    if method == "patterns":
        assert {rank for name, rank in ranks.items() if "q_proj" in name} == {2}
        assert ranks["base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"] == 8
        assert ranks["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"] == 4
        config = json.loads((adapters[method] / "adapter_config.json").read_text("utf-8"))
        assert config["alpha_pattern"] == {"v_proj": 16}
    assert any("magnitude" in name for name in shapes) == (method == "dora")
    whole = {name for name in shapes if "lora_" not in name}
    names = {
        "saved-norm": {"norm"},
        "saved-embeddings": {"embed_tokens", "lm_head"},
    }  # tied: one matrix, under both names
    assert {name.split(".")[-2] for name in whole} == names.get(method, set())


def test_int8_model_computes_with_8_bits_per_weight(adapters: Adapters) -> None:
    loaded = load_adapter(Adapter.open(adapters["int8"]))
    weight = loaded.model.get_base_model().model.layers[0].mlp.up_proj.get_base_layer().weight
    assert all(len(row.unique()) <= 255 for row in weight)
    assert len(weight[0].unique()) > 30


def test_head_and_embeddings_of_their_own_take_part(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    shutil.copytree(tiny_model, tmp_path / "untied")
    model.save_pretrained(tmp_path / "untied")
    with pytest.raises(InputError, match=r"lm_head of this model is its output head, .* --modules-to-save lm_head"):
        train(request(tmp_path / "untied", tiny_corpus, tmp_path / "adapter", target_modules="lm_head", use_dora=True))
    settings = {"target_modules": "q_proj,embed_tokens", "use_dora": True, "modules_to_save": "lm_head"}
    result = train(request(tmp_path / "untied", tiny_corpus, tmp_path / "adapter", quantization="none", **settings))
    weights = load_file(result.adapter / "adapter_model.safetensors")
    assert weights["base_model.model.model.embed_tokens.lora_embedding_B"].any()
    assert not torch.equal(weights["base_model.model.lm_head.weight"], model.lm_head.weight)
    merged = merge_adapter(MergeRequest(result.adapter, tmp_path / "model", tiny_corpus))
    assert merged.drift.max_abs_logit_diff < 1e-3
