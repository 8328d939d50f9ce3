"""An adapter for vLLM is the adapter, in the form that vLLM reads, and settings that it cannot load are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter
from finetune.errors import InputError
from finetune.export import ExportRequest, ExportResult, export_artifact
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.find import base_of
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import ExportOptions
from finetune.recipe.vllm_rules import find_obstacles, max_rank

from ..command import run as slmtune

TOKENS = torch.tensor([[5, 6, 7, 8, 9]])


def export(artifact: Path, out: Path, **options: Any) -> ExportResult:
    return export_artifact(ExportRequest(artifact, out, ExportOptions(format="vllm", **options)))


def logits(adapter: Path, base: Path) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.inference_mode():
        result: torch.Tensor = PeftModel.from_pretrained(model, str(adapter)).eval()(input_ids=TOKENS).logits
    return result


def test_plain_peft_computes_the_same_with_the_exported_folder(tiny_adapter: Path, tmp_path: Path) -> None:
    result = export(tiny_adapter, tmp_path / "export")
    base = base_of(Adapter.open(tiny_adapter)).folder
    assert torch.equal(logits(result.path, base), logits(tiny_adapter, base))
    settings = json.loads((result.path / "adapter_config.json").read_text("utf-8"))
    assert settings["peft_type"] == "LORA"
    assert "q_proj" in settings["target_modules"]
    assert "rank_pattern" not in settings
    assert "eos_token_id" in json.loads((result.path / "generation_config.json").read_text("utf-8"))
    vllm, sglang = result.commands
    assert vllm.startswith("vllm serve ")
    assert "--enable-lora --max-lora-rank" in vllm
    assert f"={result.path}" in vllm
    assert "--lora-paths" in sglang
    assert result.agreement is not None
    assert "vLLM itself was not run" in result.agreement.runtime


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"modules_to_save": ("lm_head",)},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 4}},
        {"lora_r": 600},
        {"target_modules": ("q_proj", "lm_head")},
        {"init_lora_weights": "loftq"},
        {"task": "classification"},
    ],
)
def test_settings_that_vllm_cannot_load_are_named(settings: dict[str, Any]) -> None:
    (obstacle,) = find_obstacles(AdapterRecipe(**settings))
    assert obstacle.startswith(f"--{next(iter(settings)).replace('_', '-')}") or "pattern" in obstacle


def test_rank_is_rounded_up_to_one_that_vllm_knows() -> None:
    assert [max_rank(AdapterRecipe(lora_r=rank)) for rank in (1, 4, 16, 17, 300)] == [1, 8, 16, 32, 320]
    assert find_obstacles(AdapterRecipe(use_rslora=True, init_lora_weights="eva")) == []


def test_models_and_precisions_are_refused_with_the_way_out(tiny_adapter: Path, tmp_path: Path) -> None:
    merge_adapter(MergeRequest(tiny_adapter, tmp_path / "model"))
    with pytest.raises(InputError, match="vLLM loads as it is: vllm serve"):
        export(tmp_path / "model", tmp_path / "export")
    with pytest.raises(InputError, match="Leave out --quantization"):
        export(tiny_adapter, tmp_path / "export", quantization="int8")


def test_training_can_be_refused_beforehand(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    words = [
        "train",
        "--corpus",
        tiny_corpus,
        "--model",
        tiny_model,
        "--out",
        "adapter",
        "--check",
        "vllm",
        "--dry-run",
    ]
    refused = slmtune(*words, "--use-dora", "--modules-to-save", "lm_head", cwd=tmp_path)
    assert refused.returncode == 2
    assert "--use-dora" in refused.stderr
    assert "--modules-to-save" in refused.stderr
    assert "merge the adapter first" in refused.stderr
    assert slmtune(*words, cwd=tmp_path).returncode == 0
