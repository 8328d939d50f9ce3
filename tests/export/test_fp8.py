"""A model in 8-bit floats is the adapter within limits, and any loader of compressed-tensors reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.artifacts import Export
from finetune.errors import CheckFailedError, InputError
from finetune.export import ExportRequest, ExportResult, export_artifact
from finetune.export.fp8 import quantize, run
from finetune.hub.disclosure import check_disclosure
from finetune.recipe.options import ExportOptions

from ..command import run as slmtune
from ..encoders import NEWS, write_encoder, write_encoder_adapter

WEIGHTS = "model.safetensors"


def export(artifact: Path, out: Path, corpus: Path | None = None, **options: Any) -> ExportResult:
    return export_artifact(ExportRequest(artifact, out, ExportOptions(format="fp8", **options), corpus))


def test_model_in_8_bits_follows_the_adapter(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    result = export(tiny_adapter, tmp_path / "out", tiny_corpus)

    assert result.verified
    assert result.mean_kl is not None
    assert 0 < result.facts["mean_kl_of_the_weights"] < 0.05
    tensors = load_file(result.path / WEIGHTS)
    matrices = [tensor for name, tensor in tensors.items() if "_proj.weight" in name and not name.endswith("_scale")]
    assert len(matrices) == 14
    assert {tensor.dtype for tensor in matrices} == {torch.float8_e4m3fn}
    assert tensors["model.embed_tokens.weight"].dtype != torch.float8_e4m3fn
    config = json.loads((result.path / "config.json").read_text("utf-8"))["quantization_config"]
    assert (config["quant_method"], config["format"]) == ("compressed-tensors", "float-quantized")
    assert result.commands == (
        f"vllm serve {result.path}",
        f"python -m sglang.launch_server --model-path {result.path}",
    )
    assert "vLLM itself was not run" in (result.agreement.runtime if result.agreement else "")
    check_disclosure({name: result.path / name for name in Export.open(result.path).manifest["files"]})


def test_command_writes_a_base_model_that_transformers_reads(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = slmtune("export", tiny_model, "--format", "fp8", "--output-dir", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"vllm serve {out}" in done.stdout
    assert "|" not in done.stderr  # a progress bar of a library
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("The bank raised its outlook", return_tensors="pt")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_model).chat_template
    with torch.inference_mode():
        expected, given = (AutoModelForCausalLM.from_pretrained(path)(**ids).logits for path in (tiny_model, out))
    assert 0 < (expected.float() - given.float()).abs().max() < 1
    assert Export.open(out).manifest["config"]["quantization"] == "e4m3"


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_wrong_scale_of_a_single_row_is_noticed(
    factor: float, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = quantize.quantize_model

    def write_wrong(folder: Path, out: Path) -> None:
        write(folder, out)
        tensors = load_file(out / WEIGHTS)
        tensors["model.layers.1.mlp.down_proj.weight_scale"][7] *= factor
        save_file(tensors, out / WEIGHTS, {"format": "pt"})

    monkeypatch.setattr(quantize, "quantize_model", write_wrong)
    with pytest.raises(
        CheckFailedError, match=r"layers\.1\.mlp\.down_proj\.weight is not the weight of the model, rounded"
    ):
        export(tiny_model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_model_that_computes_something_else_is_not_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_KL", 0.0)
    with pytest.raises(CheckFailedError, match="does not follow the adapter"):
        export(tiny_model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_quantised_is_refused(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = write_encoder_adapter(tmp_path / "adapter", write_encoder(tmp_path / "bert", "bert"), NEWS)
    with pytest.raises(InputError, match="is an encoder"):
        export(encoder, tmp_path / "out")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'slmtune\[fp8\]'"):
        export(tiny_model, tmp_path / "out")
