"""A base model without an adapter can be exported, too: adapters that are exported alone run beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from gguf import GGUFReader

from finetune.artifacts import Export
from finetune.errors import InputError
from finetune.export import ExportRequest, export_artifact
from finetune.models.find import find_base
from finetune.recipe.options import ExportFormat, ExportOptions

from ..command import run as slmtune


def test_command_exports_a_base_model_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    done = slmtune("export", tiny_model, "--quantization", "f16", "--ollama", "--out", "base", "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mean_kl"] < 0.01
    opened = Export.open(tmp_path / "base")
    assert opened.manifest["parents"] == {"base_model": find_base(str(tiny_model)).describe()}
    assert set(opened.manifest["files"]) == {"model-f16.gguf", "Modelfile", "params", "template"}
    assert GGUFReader(opened.path / "model-f16.gguf").fields["general.name"].contents() == tiny_model.name
    card = (opened.path / "README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["tags"] == ["slmtune", "gguf"]
    assert f"# {tiny_model.name} for llama.cpp\n" in card
    assert "with the same weights in transformers:" in card
    assert "LoRA" not in card
    assert "ollama run hf.co/NAMESPACE/NAME" in card


def test_name_that_is_no_model_is_refused_with_those_that_are(tmp_path: Path) -> None:
    done = slmtune("export", "smollm2-135", cwd=tmp_path)

    assert done.returncode == 2
    assert "smollm2-135m" in done.stderr


@pytest.mark.parametrize("format_", ["gguf-lora", "onnx", "vllm"])
def test_formats_for_adapters_are_refused(format_: ExportFormat, tiny_model: Path, tmp_path: Path) -> None:
    options = ExportOptions(format=format_)
    with pytest.raises(InputError, match=r"is a base model, without an adapter\. Export it with: --format gguf"):
        export_artifact(ExportRequest(tiny_model, tmp_path / "out", options))
