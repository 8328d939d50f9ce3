"""Models in memory: every architecture loads as it is, and what cannot be loaded is refused before weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from finetune.errors import InputError
from finetune.models.heads import Head, head_modules
from finetune.models.kind import find_kind
from finetune.models.load import load_base
from finetune.models.presets import PRESETS
from finetune.recipe import AdapterRecipe

from ..encoders import encoder_config
from ..tiny_shape import WIDTHS

SHAPE: dict[str, Any] = WIDTHS | {"vocab_size": 90}
# The configuration class of the presets whose short names start so.
CLASSES: dict[str, type[PreTrainedConfig]] = {
    "smollm2": LlamaConfig,
    "llama-3.2": LlamaConfig,
    "qwen2.5": Qwen2Config,
    "phi-2": PhiConfig,
    "gemma-2b": GemmaConfig,
    "gemma-2-": Gemma2Config,
    "gemma-3-": Gemma3TextConfig,
}
HEAD = Head("classification", ("bad", "good", "so so"))
# Families of encoders, and the modules that are trained whole.
ENCODERS = {
    "bert": {"classifier", "bert.pooler"},
    "distilbert": {"pre_classifier", "classifier"},
    "mobilebert": {"classifier"},
    "modernbert": {"head", "classifier"},
}


def write_config(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def test_every_preset_has_its_class_below() -> None:
    names = [preset.name for preset in PRESETS.values() if preset.kind == "causal"]
    assert [name for name in names if not name.startswith(tuple(CLASSES))] == []


@pytest.mark.parametrize("in_4bit", [True, False])
@pytest.mark.parametrize("preset", CLASSES)
def test_model_of_every_preset_loads(preset: str, in_4bit: bool, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_config(CLASSES[preset](**SHAPE))
    model.save_pretrained(tmp_path)
    loaded = load_base(tmp_path, AdapterRecipe(quantization="nf4" if in_4bit else "none"))
    assert type(loaded) is type(model)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the mapped files are listed on Linux only")
@pytest.mark.parametrize("unpack", [True, False])
def test_file_of_weights_is_not_mapped_during_quantisation_or_afterwards(
    tiny_model: Path, unpack: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")  # another test may have mapped the original
    maps: list[str] = []
    quantize = functional.quantize_4bit

    def note_maps(*arguments: Any, **options: Any) -> Any:
        maps.append(Path("/proc/self/maps").read_text("utf-8"))
        return quantize(*arguments, **options)

    monkeypatch.setattr(functional, "quantize_4bit", note_maps)
    model = load_base(folder, AdapterRecipe(), unpack=unpack)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert maps
    assert not [each for each in (*maps, Path("/proc/self/maps").read_text("utf-8")) if str(folder) in each]


def test_folder_of_an_encoder_is_refused_with_what_can_be_trained(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="bert", architectures=["BertForMaskedLM"])
    with pytest.raises(InputError, match=r"is an encoder, .*: smollm2-135m, "):
        load_base(tmp_path, AdapterRecipe())
    with pytest.raises(InputError, match=r"is a causal language model.*: distilbert, "):
        load_base(
            write_config(tmp_path, model_type="llama", architectures=["LlamaForCausalLM"]), AdapterRecipe(), head=HEAD
        )


@pytest.mark.parametrize(
    ("model_type", "name"), [("vit", "ViTForImageClassification"), ("bart", "BartModel"), ("llama", "LlamaModel")]
)
def test_model_that_is_neither_is_refused(model_type: str, name: str, tmp_path: Path) -> None:
    write_config(tmp_path, model_type=model_type, architectures=[name], is_encoder_decoder=model_type == "bart")
    with pytest.raises(InputError, match=rf"neither a causal language model nor an encoder \({name}\)"):
        find_kind(tmp_path)


@pytest.mark.parametrize("in_4bit", [True, False])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_gets_a_head_that_is_named_drawn_from_the_seed_and_not_quantised(
    name: str, in_4bit: bool, tmp_path: Path
) -> None:
    trained_whole = ENCODERS[name]
    kind: Any = AutoModelForSequenceClassification if name == "bert" else AutoModelForMaskedLM
    kind.from_config(encoder_config(name, num_labels=7)).save_pretrained(tmp_path)  # for bert, a head of other classes
    loaded = []
    for _ in range(2):
        torch.manual_seed(3)
        loaded.append(
            load_base(tmp_path, AdapterRecipe(quantization="nf4" if in_4bit else "none"), head=HEAD, unpack=False)
        )
    assert loaded[0].config.id2label == {0: "bad", 1: "good", 2: "so so"}
    assert set(head_modules(loaded[0])) == trained_whole
    one, two = (model.state_dict() for model in loaded)
    assert all(torch.equal(one[key], two[key]) for key in one)
    for path, module in loaded[0].named_modules():
        if isinstance(module, nn.Linear):
            in_head = path.startswith(tuple(trained_whole))
            assert isinstance(module, Linear4bit) == (in_4bit and not in_head), path


def test_model_that_needs_code_of_its_own_is_refused(tmp_path: Path) -> None:
    code = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    write_config(tmp_path, model_type="own", architectures=["OwnForCausalLM"], auto_map=code)
    with pytest.raises(InputError, match=r"'own' needs Python code from its own repository.*smollm2-135m, "):
        load_base(tmp_path, AdapterRecipe())


def test_unknown_type_of_model_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, model_type="own", architectures=["OwnForCausalLM"])
    with pytest.raises(InputError, match=r"'own' is not known to transformers \d.*smollm2-135m, "):
        load_base(tmp_path, AdapterRecipe())


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_folder_without_readable_config_is_refused(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match="has no readable config"):
        load_base(tmp_path, AdapterRecipe())
