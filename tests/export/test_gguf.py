"""A GGUF file computes in llama.cpp what its model computes in transformers, or it is not written."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from finetune.artifacts import Adapter, Export
from finetune.errors import CheckFailedError, InputError
from finetune.export import ExportRequest, ExportResult, export_artifact
from finetune.export.gguf import run
from finetune.export.gguf.server import LlamaServer
from finetune.models.find import BaseModel
from finetune.models.gguf import tensors
from finetune.models.gguf.families import read_shape
from finetune.models.gguf.lora import read_lora, write_lora
from finetune.models.gguf.vocabulary import SPLITS
from finetune.models.gguf.writer import write_model
from finetune.models.llama_cpp import GgufModel
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe.options import ExportOptions

from ..command import run as slmtune
from ..tiny_shape import WIDTHS

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
HEADS = {"head_dim": 16, "query_pre_attn_scalar": 16}
# What sets the families apart: types of models and settings that the presets have.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama-3.2": {"model_type": "llama", "rope_parameters": LLAMA3, "attention_bias": True},
    "linear": {"model_type": "llama", "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "gemma": {"model_type": "gemma", "head_dim": 16},
    "gemma2": {"model_type": "gemma2", **HEADS, "sliding_window": 8},
    "gemma3": {"model_type": "gemma3_text", **HEADS, "sliding_window": 8, "num_hidden_layers": 6},
    "phi": {"model_type": "phi", "num_key_value_heads": 4},
    "phi3": {"model_type": "phi3"},
}
GELU = {"gemma", "gemma2", "gemma3_text", "phi"}  # llama.cpp looks it up in a table of 16 bits
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model, BaseModel("tiny", tiny_model, "local", ""))


@pytest.fixture
def family(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """A random model of a family; no weight has the value that a new model has, neither in norms nor in biases."""
    settings = WIDTHS | SPECIAL | FAMILIES[request.param]
    config = AutoConfig.for_model(vocab_size=len(tokenizer), max_position_embeddings=256, **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.3 * torch.randn_like(weight)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def file_logits(file: Path, ids: list[int]) -> torch.Tensor:
    with GgufModel(file) as model:
        model.reserve(len(ids), 1)
        first = model.read(ids[:1])
        rest = model.read_tree([(token, depth, (0,)) for depth, token in enumerate(ids[1:], 1)], 1)
    return torch.from_numpy(np.stack([first, *rest])).float()


@pytest.mark.parametrize("family", FAMILIES, indirect=True)
def test_file_computes_what_the_model_computes(
    family: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    write_model(family, read_shape(family), tokenizer, tmp_path / "file.gguf", precision="f32", name="tiny")
    ids: list[int] = tokenizer("The bank raised its outlook after profit rose. Shares fell as costs grew.")["input_ids"]
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(family).eval()(torch.tensor([ids])).logits[0]
    tolerance = 1e-2 if read_shape(family).config.model_type in GELU else 1e-3
    torch.testing.assert_close(file_logits(tmp_path / "file.gguf", ids), expected, atol=tolerance, rtol=1e-3)


def byte_level(split: str | None, digits: bool) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("1", "2"), ("12", "3"), ("'", "t"), ("Ġ", "h"), ("Ġ", "Ġ")]
    words = ["<s>", "</s>", *alphabet, *map("".join, merges)]
    built = Tokenizer(models.BPE(vocab={word: number for number, word in enumerate(words)}, merges=merges))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if split is not None:
        steps.append(pre_tokenizers.Split(Regex(split), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None))
    built.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    built.decoder = decoders.ByteLevel()
    return built


def sentence_piece() -> Tokenizer:
    letters = ["▁", *"helo wrdt123.'\n"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello"), ("▁", "▁"), ("1", "2")]
    words = ["<s>", "</s>", "<unk>", *(f"<0x{number:02X}>" for number in range(256)), *letters, *map("".join, merges)]
    built = Tokenizer(
        models.BPE(
            vocab={word: number for number, word in enumerate(words)},
            merges=merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    built.normalizer = normalizers.Replace(" ", "▁")
    built.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return built


TOKENIZERS = {
    "gpt-2": byte_level(None, digits=False),
    "smollm": byte_level(None, digits=True),
    **{name: byte_level(split, digits=False) for split, name in SPLITS.items()},
    "gemma": sentence_piece(),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("family", ["llama"], indirect=True)
def test_file_splits_texts_as_the_tokenizer_does(name: str, family: Path, tmp_path: Path) -> None:
    built = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS[name], bos_token="<s>", eos_token="</s>")
    built.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    built.add_tokens(["added"])
    built.chat_template = "{% for message in messages %}{{ message.content + eos_token }}{% endfor %}"
    write_model(family, read_shape(family), built, tmp_path / "file.gguf", precision="f32", name="tiny")
    text = "<|turn|> hello  hell don't 12345 added HE\tné 日本🙂\n\n  hello.</s>"
    with GgufModel(tmp_path / "file.gguf") as model:
        expected = built(text, add_special_tokens=False)["input_ids"]
        assert model.tokenizer(text, add_special_tokens=False)["input_ids"] == expected
        assert model.tokenizer.chat_template == built.chat_template


ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "rsLoRA": ("llama", {"use_rslora": True}),
    "patterns": ("qwen2", {"alpha_pattern": {"q_proj": 3}, "rank_pattern": {"up_proj": 2}}),
    "gemma2": ("gemma2", {}),
    "fused layers": ("phi3", {}),
}


@pytest.mark.parametrize(("family", "settings"), ADAPTERS.values(), ids=ADAPTERS, indirect=["family"])
def test_adapter_beside_its_base_computes_what_peft_computes(
    family: Path, settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(family), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.add_(0.2 * torch.randn_like(weight))
    model.save_pretrained(str(tmp_path / "adapter"))
    adapter, shape = Adapter(tmp_path / "adapter", {"config": {}}), read_shape(family)
    base, lora = tmp_path / "base.gguf", tmp_path / "lora.gguf"
    write_lora(adapter, read_lora(adapter, shape), shape, lora)
    write_model(family, shape, tokenizer, base, precision="f32", name="tiny")
    ids: list[int] = tokenizer("The bank raised its outlook")["input_ids"]
    with torch.inference_mode():
        expected = model.eval()(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    with LlamaServer(base, 256, lora) as server:
        given = server.next_tokens(ids, shape.config.vocab_size)
    likeliest = [
        token for token, logprob in given.items() if logprob > -8
    ]  # llama.cpp keeps keys and values in 16 bits
    assert len(likeliest) > 5
    torch.testing.assert_close(torch.tensor([given[one] for one in likeliest]), expected[likeliest], atol=0.02, rtol=0)


@pytest.fixture(scope="module")
def result(tiny_adapter: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    return export(tiny_adapter, tmp_path_factory.mktemp("exports") / "gguf", tiny_corpus, quantization="f16")


def export(artifact: Path, out: Path, corpus: Path | None, **options: Any) -> ExportResult:
    return export_artifact(ExportRequest(artifact, out, ExportOptions(**options), corpus))


def test_file_of_an_adapter_is_compared_with_the_adapter_as_trained(result: ExportResult, tiny_adapter: Path) -> None:
    assert result.verified
    assert result.agreement is not None
    assert result.agreement.bundled_rows < result.agreement.rows
    assert 0 < result.agreement.mean_kl < 0.35
    rounding = 1e-6  # in 16 bits, the weights account for all of it
    assert result.facts["mean_kl_of_the_weights"] < result.agreement.mean_kl + rounding
    assert result.facts["held_out_loss"] == pytest.approx(result.facts["held_out_loss_in_transformers"], abs=0.01)
    opened = Export.open(result.path)
    assert set(opened.manifest["files"]) == {"model-f16.gguf"}
    assert opened.manifest["verification"]["mean_kl"] == result.mean_kl
    assert set(opened.manifest["parents"]) >= {"adapter", "base_model"}


def test_adapter_alone_is_run_beside_its_base_model(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    given = export(tiny_adapter, tmp_path / "lora", tiny_corpus, format="gguf-lora")
    assert given.mean_kl is not None
    assert -0.001 < given.facts["mean_kl_of_the_weights"] < given.mean_kl < 0.35
    assert sorted(path.name for path in given.path.iterdir()) == ["README.md", "adapter.gguf", "manifest.json"]
    fields = GGUFReader(given.path / "adapter.gguf").fields
    assert (fields["general.type"].contents(), fields["adapter.type"].contents()) == ("adapter", "lora")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True, "target_modules": ["q_proj"]}, "DoRA"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "more than the two matrices"),
    ],
)
def test_adapter_that_is_more_than_lora_is_to_be_merged_first(
    settings: dict[str, Any], reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=2, **settings))
    model.save_pretrained(str(tmp_path))
    with pytest.raises(InputError, match=rf"{reason}.*Merge first"):
        read_lora(Adapter(tmp_path, {"config": {}}), read_shape(tiny_model))


def test_file_names_no_place_of_this_machine(result: ExportResult, tiny_model: Path) -> None:
    fields = GGUFReader(result.path / "model-f16.gguf").fields
    assert fields["general.name"].contents() == tiny_model.name
    assert not [name for name, field in fields.items() if str(tiny_model.parent) in str(field.contents())]


@pytest.mark.parametrize(
    ("part", "precision", "compared"), [(".k_proj.", "f16", "f16"), ("layers.1.self_attn.k_proj.", "q3_k_m", "f32")]
)
def test_wrong_file_is_not_written(
    part: str,
    precision: str,
    compared: str,
    tiny_adapter: Path,
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrange = tensors.arrange

    def forget_pairs(tensor: torch.Tensor, key: str, shape: Any) -> torch.Tensor:
        return tensor if part in key else arrange(tensor, key, shape)

    monkeypatch.setattr(tensors, "arrange", forget_pairs)
    with pytest.raises(CheckFailedError, match=f"the {compared} file is not .* mean KL"):
        export(tiny_adapter, tmp_path / "gguf", tiny_corpus, quantization=precision)
    assert list(tmp_path.iterdir()) == []


def test_file_with_another_chat_template_is_not_written(
    tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_other(model: Path, shape: Any, tokenizer: PreTrainedTokenizerBase, *rest: Any, **options: Any) -> None:
        other = copy.deepcopy(tokenizer)
        other.chat_template = str(tokenizer.chat_template).replace("\n", " ")
        write_model(model, shape, other, *rest, **options)

    monkeypatch.setattr(run, "write_model", write_other)
    with pytest.raises(CheckFailedError, match=r"(\d+) of \1 conversations as other tokens"):
        export(tiny_adapter, tmp_path / "gguf", None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def merged(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> Path:
    from finetune.merge import MergeRequest, merge_adapter

    return merge_adapter(MergeRequest(tiny_adapter, tmp_path / "merged", tiny_corpus)).model


def test_command_exports_a_merged_model_quantised_by_llama_cpp(merged: Path, tmp_path: Path) -> None:
    done = slmtune("export", merged, "--quantization", "q8_0", "--output-dir", tmp_path / "out", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["verified"] is True
    assert answer["format"] == "gguf"
    assert answer["quantization"] == "q8_0"
    assert answer["mean_kl"] < 0.02
    whole = sum(file.stat().st_size for file in merged.glob("*.safetensors"))
    assert (tmp_path / "out" / "model-q8_0.gguf").stat().st_size < whole / 2


def test_missing_adapter_and_unknown_precision_are_named(tmp_path: Path) -> None:
    done = slmtune("export", "--domain", "finance", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "slmtune train --domain finance" in done.stderr
    done = slmtune("export", "--quantization", "q9", cwd=tmp_path)
    assert done.returncode == 2
    assert "q8_0" in done.stderr


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "gpt_neox"}, "of type gpt_neox cannot be exported to GGUF. Types that can: llama"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "scaled by dynamic"),
    ],
)
def test_model_that_llama_cpp_computes_differently_is_refused(
    changes: dict[str, Any], reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | changes), "utf-8")
    with pytest.raises(InputError, match=reason):
        read_shape(tmp_path / "model")


def test_tokenizer_that_llama_cpp_does_not_have_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    built = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    built.chat_template = "{{ messages[0].content }}"
    with pytest.raises(InputError, match="byte-pair encoding"):
        write_model(tiny_model, read_shape(tiny_model), built, tmp_path / "x.gguf", precision="f32", name="x")
