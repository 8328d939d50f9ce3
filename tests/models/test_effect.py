"""An adapter that changes nothing is refused with the reason, before it is evaluated, merged or served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, writing
from finetune.errors import CheckFailedError
from finetune.evaluate import EvalRequest, evaluate
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.effect import require_effect
from finetune.models.load import LoadedModel, attach_adapter, load_adapter
from finetune.recipe import AdapterRecipe
from finetune.serve.chat import open_conversation
from finetune.serve.targets import ServeTarget, open_engine
from finetune.train import TrainRequest, train

from ..command import Command
from ..encoders import ENCODERS, NEWS, write_encoder, write_encoder_adapter

Tensors = dict[str, torch.Tensor]
ZERO = "second matrix of each of its LoRA layers is zero"


def edit_adapter(source: Path, target: Path, change: Callable[[Tensors], Tensors], **config: Any) -> Path:
    """A copy of an adapter with other tensors or another adapter_config.json, and a manifest that fits it."""
    adapter = Adapter.open(source)
    with writing(target, Adapter, overwrite=False) as writer:
        shutil.copytree(source, writer.folder, dirs_exist_ok=True)
        writer.manifest.update({key: value for key, value in adapter.manifest.items() if key != "files"})
        file, settings = writer.folder / "adapter_model.safetensors", writer.folder / "adapter_config.json"
        save_file(change(load_file(file)), file, {"format": "pt"})
        settings.write_text(json.dumps(json.loads(settings.read_text("utf-8")) | config), "utf-8")
    return target


def zero_second(tensors: Tensors) -> Tensors:
    return {name: tensor * 0 if "lora_B" in name else tensor for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def untrained(tiny_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return edit_adapter(tiny_adapter, tmp_path_factory.mktemp("adapters") / "untrained", zero_second)


def load(adapter: Path) -> LoadedModel:
    return load_adapter(Adapter.open(adapter))


def test_adapter_with_a_scale_of_zero_is_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    silent = edit_adapter(tiny_adapter, tmp_path / "silent", lambda tensors: tensors, lora_alpha=0)
    with pytest.raises(CheckFailedError, match=r"silent changes nothing.*lora_alpha is 0"):
        load(silent)


def test_adapter_of_which_no_key_fits_the_model_is_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    def rename(tensors: Tensors) -> Tensors:
        return {name.replace("self_attn", "attn").replace("mlp", "ffn"): tensor for name, tensor in tensors.items()}

    with pytest.raises(CheckFailedError, match=r"none of its 28 tensors belongs to .* expects .*mlp.down_proj"):
        load(edit_adapter(tiny_adapter, tmp_path / "renamed", rename))


def test_updates_below_the_precision_of_the_base_are_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    def shrink(tensors: Tensors) -> Tensors:
        return {name: tensor * 1e-30 for name, tensor in tensors.items()}

    with pytest.raises(CheckFailedError, match="smaller than the precision"):
        load(edit_adapter(tiny_adapter, tmp_path / "small", shrink))


def test_nothing_is_evaluated(untrained: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=ZERO):
        evaluate(EvalRequest(untrained, tiny_corpus, tmp_path / "eval"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_merged(untrained: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailedError, match=ZERO):
        merge_adapter(MergeRequest(untrained, tmp_path / "model", tiny_corpus))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", ["untrained", "trained"])
def test_nothing_is_served_also_beside_an_adapter_that_works(first: str, untrained: Path, tiny_adapter: Path) -> None:
    targets = [ServeTarget("untrained", untrained), ServeTarget("trained", tiny_adapter)]
    with pytest.raises(CheckFailedError, match=f"{untrained} changes nothing.*{ZERO}"):
        open_engine(sorted(targets, key=lambda target: target.name != first))


def test_no_conversation_begins(untrained: Path) -> None:
    with pytest.raises(CheckFailedError, match=ZERO), open_conversation("untrained", untrained):
        pass


def test_command_exits_with_3_and_one_paragraph(untrained: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    outcome = Command("eval", untrained, "--corpus", tiny_corpus, "--out", tmp_path / "out", cwd=tmp_path)
    assert outcome.wait() == 3
    assert "changes nothing" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoder_whose_matrices_are_zero_is_refused_whatever_its_head(kind: str, tmp_path: Path) -> None:
    base = write_encoder(tmp_path / "base", kind)
    adapter = write_encoder_adapter(tmp_path / "adapter", base, NEWS)
    load(adapter)
    with pytest.raises(CheckFailedError, match=ZERO):
        load(edit_adapter(adapter, tmp_path / "untrained", zero_second))


@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_step_is_enough(tiny_model: Path, dtype: torch.dtype, use_dora: bool, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
    config = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", use_dora=use_dora)
    model = get_peft_model(base, config)
    with pytest.raises(CheckFailedError, match=ZERO):
        require_effect(model, tmp_path)
    model.set_adapter("default")
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=2e-4)
    ids = torch.arange(3, 20)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    require_effect(model, tmp_path)


def test_run_of_a_single_step_changes_the_model(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    train(TrainRequest(tiny_corpus, tmp_path / "adapter", AdapterRecipe(model=str(tiny_model), max_steps=1)))
    load(tmp_path / "adapter")


def test_check_leaves_the_active_adapter_and_its_answers_alone(tiny_adapter: Path, untrained: Path) -> None:
    loaded, ids = load(tiny_adapter), torch.arange(3, 9)[None]
    with torch.inference_mode():
        before = loaded.model(input_ids=ids).logits
        attach_adapter(loaded.model, untrained, "other")
        with pytest.raises(CheckFailedError):
            require_effect(loaded.model, untrained, "other")
        assert loaded.model.active_adapter == "default"
        assert torch.equal(loaded.model(input_ids=ids).logits, before)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
