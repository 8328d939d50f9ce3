"""An ONNX file of a causal language model writes in onnxruntime what the model writes in transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from finetune.errors import InputError
from finetune.export import ExportRequest, ExportResult, export_artifact
from finetune.export.onnx import convert as onnx_convert
from finetune.export.onnx.convert import FILES, convert
from finetune.export.onnx.decoder import DECODERS, require_decoder
from finetune.export.onnx.session import OnnxDecoder
from finetune.models.find import BaseModel
from finetune.models.load import LoadedModel
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe.options import ExportOptions, OnnxPrecision

from ..tiny_shape import WIDTHS

# What sets the supported types apart: biases, norms of queries and keys, windows of attention, widths of heads. One has two
# layers: to convert more takes time and proves nothing.
TYPES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "gemma": {"head_dim": 16},
    "gemma3_text": {
        "num_hidden_layers": 2,
        "head_dim": 16,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
LENGTHS = (1, 2, 5, 6, 9, 17, 30, 50)  # of prompts: shorter and longer than the sample, and than a window


def build(kind: str, tiny_model: Path) -> LoadedModel:
    """A random model of a type, with the tokenizer of the tiny model."""
    tokenizer = load_tokenizer(tiny_model, base := BaseModel("tiny", tiny_model, "local", ""))
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.2}
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), **WIDTHS | special | {"num_hidden_layers": 1} | TYPES[kind]
    )
    torch.manual_seed(0)
    return LoadedModel(AutoModelForCausalLM.from_config(config).eval(), tokenizer, base)


def prompts(model: PreTrainedModel) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randint(3, model.config.vocab_size, (1, length)) for length in LENGTHS]


def write(decoder: OnnxDecoder, prompt: list[int], count: int) -> list[int]:
    """The tokens with which a file continues a prompt, one at a time on the cache."""
    logits, cache = decoder.read(prompt, decoder.empty_cache())
    tokens = [int(logits[-1].argmax())]
    while len(tokens) < count:
        logits, cache = decoder.read(tokens[-1:], cache)
        tokens.append(int(logits[-1].argmax()))
    return tokens


@pytest.fixture(scope="module", params=TYPES)
def exported(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LoadedModel, Path]:
    """A model and its file; that of Qwen as if its weights were too large for one file."""
    loaded = build(request.param, tiny_model)
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "qwen2":
            patch.setattr(onnx_convert, "LARGEST", 0)
        convert(loaded, "f32", file)
    assert file.with_name("model.onnx_data").is_file() == (request.param == "qwen2")
    return loaded, file


@pytest.mark.slow
def test_file_writes_what_the_model_writes(exported: tuple[LoadedModel, Path]) -> None:
    loaded, file = exported
    decoder = OnnxDecoder(file, loaded.model.config)
    loaded.model.generation_config.eos_token_id = None  # both write on behind it
    for ids in prompts(loaded.model):
        with torch.no_grad():
            expected = loaded.model(ids).logits
            text = loaded.model.generate(ids, max_new_tokens=24, do_sample=False)
        assert torch.allclose(decoder(ids)["logits"], expected, atol=1e-4)
        assert write(decoder, ids[0].tolist(), 24) == text[0, ids.shape[1] :].tolist()


@pytest.mark.slow
def test_file_takes_padded_rows_under_the_names_that_other_programs_know(exported: tuple[LoadedModel, Path]) -> None:
    loaded, file = exported
    session = onnxruntime.InferenceSession(str(file))
    config = loaded.model.config
    cache = [f"{layer}.{part}" for layer in range(config.num_hidden_layers) for part in ("key", "value")]
    tokens = ["input_ids", "attention_mask", "position_ids"]
    assert [each.name for each in session.get_inputs()] == [*tokens, *(f"past_key_values.{name}" for name in cache)]
    assert [each.name for each in session.get_outputs()] == ["logits", *(f"present.{name}" for name in cache)]
    width = getattr(config, "head_dim", None) or 8
    assert session.get_inputs()[3].shape == ["batch_size", 2, "past_sequence_length", width]
    ids = prompts(loaded.model)[-2].repeat(3, 1)
    mask = torch.ones_like(ids)
    mask[0, :9] = mask[2, :1] = 0
    places = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = loaded.model(ids, attention_mask=mask, position_ids=places).logits
    given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "position_ids": places.numpy()}
    empty = {f"past_key_values.{name}": np.zeros((3, 2, 0, width), np.float32) for name in cache}
    (logits,) = session.run(["logits"], given | empty)
    assert torch.allclose(torch.from_numpy(logits)[mask > 0], expected[mask > 0], atol=1e-4)


def export(adapter: Path, corpus: Path, out: Path, precision: OnnxPrecision) -> ExportResult:
    options = ExportOptions(format="onnx", quantization=precision)
    return export_artifact(ExportRequest(adapter, out, options, corpus=corpus))


@pytest.mark.slow
def test_adapter_becomes_a_folder_that_chats(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    whole = export(tiny_adapter, tiny_corpus, tmp_path / "f32", "f32")
    assert whole.verified
    assert whole.greedy_agreement == 1.0
    assert whole.facts["largest logit difference from torch"] < 1e-3
    assert whole.facts["tokens_per_second"] > 0
    names = {path.name for path in whole.path.iterdir()}
    assert names >= {"config.json", "generation_config.json", "tokenizer.json", "onnx"}
    assert "im_start" in json.loads((whole.path / "tokenizer_config.json").read_text("utf-8"))["chat_template"]
    assert json.loads((whole.path / "generation_config.json").read_text("utf-8"))["eos_token_id"] == [2]
    small = export(tiny_adapter, tiny_corpus, tmp_path / "int8", "int8")
    assert small.mean_kl is not None
    assert 0 < small.mean_kl < 0.25
    assert (small.path / FILES["int8"]).stat().st_size < 0.5 * (whole.path / FILES["f32"]).stat().st_size


def test_each_type_is_tested() -> None:
    assert set(TYPES) == set(DECODERS)


def test_other_types_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba2"}', "utf-8")
    with pytest.raises(InputError, match=r"of these types: llama, .* is of type mamba2\. Export it with --format gguf"):
        require_decoder(tmp_path)
