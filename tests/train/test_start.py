"""What adapters start with: directions of weights or inputs, a correction of the quantisation, or another adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, Model
from finetune.errors import BaseModelError, InputError
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.load import load_base, load_merged
from finetune.recipe import AdapterRecipe
from finetune.train import TrainRequest, train
from finetune.train.arguments import lora_config
from finetune.train.start import correct_quantization

from .test_methods import IDS, Killed, kill, request
from .test_model_checks import copy_model

WEIGHTS = "adapter_model.safetensors"


@torch.no_grad()
def logits(model: Any) -> Tensor:
    result: Tensor = model.eval()(IDS).logits
    return result


@pytest.fixture
def plain_adapter(tiny_model: Path, tmp_path: Path) -> Path:
    """An adapter that PEFT made, with an effect from the beginning."""
    torch.manual_seed(3)
    config = LoraConfig(
        task_type="CAUSAL_LM", r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj"], init_lora_weights=False
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(str(tmp_path / "plain"))
    return tmp_path / "plain"


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_loftq_brings_the_quantised_model_closer_to_the_original(quantization: Any, tiny_model: Path) -> None:
    original: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    recipe = AdapterRecipe(quantization=quantization, lora_r=24)
    model: Any = get_peft_model(load_base(tiny_model, recipe, unpack=False), lora_config(recipe, original))
    before = (logits(model) - logits(original)).norm()
    correct_quantization(model)
    assert float((logits(model) - logits(original)).norm()) < 0.8 * float(before)


def test_adapter_that_corrects_a_quantised_base_is_merged_onto_that(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    result = train(request(tiny_model, tiny_corpus, tmp_path / "adapter", init_lora_weights="loftq"))
    merged = merge_adapter(MergeRequest(result.adapter, tmp_path / "model", tiny_corpus))
    assert merged.onto == "dequantized"
    assert merged.drift.max_abs_logit_diff < 1e-3
    assert merged.drift.max_abs_logit_diff < 1e-3
    assert "quantization_config" not in json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    load_merged(Model.open(tmp_path / "model"))


def test_pissa_starts_as_the_base_model(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    settings = {"init_lora_weights": "pissa", "quantization": "none", "learning_rate": 1e-12}
    recipe = request(tiny_model, tiny_corpus, tmp_path / "adapter").recipe.model_copy(update=settings)
    result = train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe))
    untouched: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
    plain: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(result.adapter))
    torch.testing.assert_close(logits(plain), logits(untouched), atol=1e-4, rtol=0)
    assert (
        load_file(result.adapter / WEIGHTS)["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"].shape[0] == 8
    )


def test_eva_starts_with_main_directions_of_the_inputs(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    settings = {"init_lora_weights": "eva", "learning_rate": 1e-12}
    first = request(tiny_model, tiny_corpus, tmp_path / "adapter")
    result = train(TrainRequest(tiny_corpus, tmp_path / "adapter", first.recipe.model_copy(update=settings)))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    directions = load_file(result.adapter / WEIGHTS)[name]
    torch.testing.assert_close(directions @ directions.t(), torch.eye(4), atol=1e-3, rtol=0)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"init_lora_weights": "pissa"}, r"pissa .* must not be quantised to nf4 .* --quantization none"),
        ({"init_lora_weights": "loftq", "quantization": "none"}, r"loftq corrects the errors .* there are none"),
        ({"init_lora_weights": "loftq", "use_dora": True}, r"loftq and --use-dora cannot be combined"),
        (
            {"init_lora_weights": "pissa", "quantization": "none", "use_rslora": True},
            r"--use-rslora cannot be combined",
        ),
        ({"init_lora_weights": "eva", "target_modules": "q_proj,embed_tokens"}, r"its embeddings and its output head"),
    ],
)
def test_start_that_cannot_be_is_refused(
    changes: dict[str, Any], expected: str, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=expected):
        train(request(tiny_model, tiny_corpus, tmp_path / "out", **changes))


def test_run_goes_on_from_an_adapter_and_resumes(
    tiny_adapter: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    def goes_on(out: str, *, resume: bool = False) -> TrainRequest:
        recipe = AdapterRecipe(
            model=str(tiny_model),
            init_adapter=str(tiny_adapter),
            max_steps=5,
            save_steps=2,
            learning_rate=1e-3,
            logging_steps=1,
        )
        return TrainRequest(tiny_corpus, tmp_path / out, recipe, resume=resume)

    whole = train(goes_on("whole"))
    adapter = Adapter.open(whole.adapter)
    before = Adapter.open(tiny_adapter)
    assert adapter.manifest["parents"]["init_adapter"] == {"name": "tiny", "fingerprint": before.fingerprint}
    assert adapter.config["init_adapter"] == "tiny"
    first = json.loads((whole.adapter / "training.jsonl").read_text("utf-8").splitlines()[0])
    assert first["loss"] < 0.5  # not that of an untrained model
    with pytest.raises(Killed):
        train(goes_on("killed"), kill)
    assert train(goes_on("killed", resume=True)).resumed_from == "checkpoint-2"
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (whole.adapter / WEIGHTS).read_bytes()


def test_settings_of_an_adapter_of_peft_are_taken(
    plain_adapter: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), init_adapter=str(plain_adapter), max_steps=1, learning_rate=1e-12)
    result = train(TrainRequest(tiny_corpus, tmp_path / "out", recipe))
    config = json.loads((result.adapter / "adapter_config.json").read_text("utf-8"))
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (3, 5, True)
    before, after = load_file(plain_adapter / WEIGHTS), load_file(result.adapter / WEIGHTS)
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)


@pytest.mark.usefixtures("no_weights")
def test_adapter_that_does_not_fit_is_refused_before_weights_load(
    tiny_adapter: Path, plain_adapter: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    def refusal(adapter: Path, **changes: Any) -> str:
        settings = {"model": str(tiny_model), "init_adapter": str(adapter)} | changes
        with pytest.raises(InputError) as caught:
            train(TrainRequest(tiny_corpus, tmp_path / "out", AdapterRecipe(**settings)))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no adapter" in refusal(tmp_path)
    assert "lora_r is 3 and not 8" in refusal(plain_adapter, lora_r=8)
    assert "it has weights already" in refusal(plain_adapter, init_lora_weights="eva")
    other = copy_model(tiny_model, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseModelError, match=r"was trained on tiny-llama .* but other has weights"):
        train(
            TrainRequest(tiny_corpus, tmp_path / "out", AdapterRecipe(model=str(other), init_adapter=str(tiny_adapter)))
        )
    tensors = load_file(plain_adapter / WEIGHTS)
    name = next(name for name in tensors if "lora_A" in name)
    save_file(tensors | {name: tensors[name][:, :8].contiguous()}, plain_adapter / WEIGHTS)
    assert "3 × 8 in the adapter and would be 3 × 64 for the model" in refusal(plain_adapter)
    config = json.loads((plain_adapter / "adapter_config.json").read_text("utf-8"))
    (plain_adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_bias": True}), "utf-8")
    assert "lora_bias: True" in refusal(plain_adapter)
    shutil.rmtree(tmp_path / "plain")
