"""Several adapters merge into the model that PEFT's weighted adapter is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, Model, writing
from finetune.errors import BaseModelError, InputError
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import SEED

from ..command import run as slmtune

WEIGHTS = (0.7, -0.3)


def write_adapter(folder: Path, model: Path, seed: int, std: float = 0.1, **settings: Any) -> Path:
    """An adapter artifact with random matrices."""
    options = {"lora_r": 4, "lora_alpha": 8, "quantization": "none", **settings}
    recipe = AdapterRecipe.model_validate({"model": str(model), **options})
    base = find_base(str(model))
    config = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        target_modules=settings.get("target_modules", "all-linear"),
        use_dora=recipe.use_dora,
        rank_pattern=dict(recipe.rank_pattern),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=std)
    with writing(folder, Adapter, overwrite=False) as writer:
        adapted.save_pretrained(str(writer.folder))
        (writer.folder / "README.md").unlink()
        load_tokenizer(model, base).save_pretrained(writer.folder)
        writer.manifest["config"] = recipe.model_dump(mode="json") | {"model": base.name}
        corpus = {"fingerprint": str(seed) * 64, "sources": []}
        writer.manifest["parents"] = {"base_model": base.describe(), "corpus": corpus}
    return folder


@pytest.fixture
def pair(tiny_model: Path, tmp_path: Path) -> tuple[Path, Path]:
    ranks: dict[str, Any] = {"rank_pattern": {"q_proj": 2}}
    return (
        write_adapter(tmp_path / "one", tiny_model, 1, **ranks),
        write_adapter(tmp_path / "two", tiny_model, 2, lora_alpha=4, **ranks),
    )


@pytest.mark.parametrize("combination", ["cat", "linear", "ties", "dare_linear", "dare_ties"])
def test_combination_equals_the_weighted_adapter_of_peft(combination: Any, tiny_model: Path, tmp_path: Path) -> None:
    one, two = (write_adapter(tmp_path / str(seed), tiny_model, seed, lora_alpha=4 * seed) for seed in (1, 2))
    request = MergeRequest(one, tmp_path / "model", others=(two,), weights=WEIGHTS, combination=combination)
    assert merge_adapter(request).verified
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(one), "one")
    plain.load_adapter(str(two), "two")
    torch.manual_seed(SEED)
    density = None if combination in ("cat", "linear") else 0.5
    tuner: Any = plain.base_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner, "inject_adapter", keep_random_state(tuner.inject_adapter))
        tuner.add_weighted_adapter(["one", "two"], list(WEIGHTS), "both", combination, density=density)
    plain.set_adapter("both")
    expected: Any = plain.merge_and_unload(adapter_names=["both"])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-5, rtol=0)


def keep_random_state(inject: Any) -> Any:
    """The first values of new matrices are random, and overwritten; those of DARE must not depend on them."""

    def call(*arguments: Any, **options: Any) -> None:
        with torch.random.fork_rng(devices=[]):
            inject(*arguments, **options)

    return call


def test_half_of_an_adapter_twice_is_that_adapter(pair: tuple[Path, Path], tmp_path: Path) -> None:
    one, _ = pair
    merge_adapter(MergeRequest(one, tmp_path / "alone"))
    merge_adapter(MergeRequest(one, tmp_path / "twice", others=(one,)))
    alone, twice = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("alone", "twice"))
    for name, tensor in alone.items():
        torch.testing.assert_close(twice[name], tensor, atol=1e-5, rtol=0)


def test_command_combines_and_records_both(pair: tuple[Path, Path], tmp_path: Path) -> None:
    done = slmtune("merge", *pair, "--weights", "0.7,0.3", "--combination", "ties", "--out", "model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = Model.open(tmp_path / "model").manifest
    assert (manifest["config"]["weights"], manifest["config"]["combination"]) == ([0.7, 0.3], "ties")
    fingerprints = [Adapter.open(adapter).fingerprint for adapter in pair]
    assert [manifest["parents"][name]["fingerprint"] for name in ("adapter", "adapter_2")] == fingerprints
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "one", "two"]


REFUSED: dict[str, tuple[type[InputError], dict[str, Any], str]] = {
    "another rank": (InputError, {"lora_r": 2}, "rank 2 and .* rank 4"),
    "DoRA": (InputError, {"use_dora": True}, "norms of rows"),
    "other layers": (InputError, {"target_modules": ["q_proj"]}, "matrices for different layers"),
    "another form of the base": (
        BaseModelError,
        {"quantization": "nf4"},
        "different base models, or over different forms",
    ),
}


@pytest.mark.parametrize(("error", "settings", "words"), REFUSED.values(), ids=REFUSED)
def test_adapters_that_do_not_fit_each_other_are_refused(
    error: type[InputError], settings: dict[str, Any], words: str, tiny_model: Path, tmp_path: Path
) -> None:
    one = write_adapter(tmp_path / "one", tiny_model, 1)
    two = write_adapter(tmp_path / "two", tiny_model, 2, **settings)
    with pytest.raises(error, match=words):
        merge_adapter(MergeRequest(one, tmp_path / "model", others=(two,)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(("weights", "words"), [("0.7", "1 numbers for 2 adapters"), ("a,b", "not a list of numbers")])
def test_weights_that_do_not_fit_are_refused(weights: str, words: str, pair: tuple[Path, Path], tmp_path: Path) -> None:
    done = slmtune("merge", *pair, "--weights", weights, "--out", "model", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(words, done.stderr)


def test_weights_of_a_single_adapter_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only one is given"):
        merge_adapter(MergeRequest(pair[0], tmp_path / "model", weights=(0.5,)))
