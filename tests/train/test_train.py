"""Training: an adapter that PEFT loads, reproducible, and written only if everything is right."""

from __future__ import annotations

import functools
import gc
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune.artifacts import Adapter, Corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError, OutputExistsError, TrainingDivergedError
from finetune.models.chat_template import render
from finetune.models.find import find_base
from finetune.models.load import load_adapter
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.train import Step, TrainRequest, plan_training, train

from .. import command


def recipe(model: Path, **changes: Any) -> AdapterRecipe:
    return AdapterRecipe(**{"model": str(model), "max_steps": 3, "logging_steps": 1, "learning_rate": 1e-2} | changes)


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def test_loss_falls(tiny_adapter: Path) -> None:
    lines = [json.loads(line) for line in (tiny_adapter / "training.jsonl").read_text("utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] / 2
    assert {"step", "epoch", "loss", "grad_norm", "learning_rate", "tokens", "seconds"} <= set(lines[0])


def test_adapter_is_plain_peft_and_names_no_path(tiny_adapter: Path, tiny_model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(tiny_adapter))
    assert any("lora_A" in name for name, _ in model.named_parameters())
    names = {path.name for path in tiny_adapter.iterdir()}
    assert {"README.md", "chat_template.jinja", "manifest.json", "tokenizer.json", "training.png"} <= names
    for file in ("adapter_config.json", "manifest.json", "README.md", "tokenizer_config.json"):
        assert str(tiny_model.parent) not in (tiny_adapter / file).read_text("utf-8")


def test_all_linear_layers_but_the_head_are_adapted(tiny_adapter: Path) -> None:
    adapted = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in weights(tiny_adapter)}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {tensor.dtype for tensor in weights(tiny_adapter).values()} == {torch.float32}


def test_manifest_has_parents_and_result(tiny_adapter: Path, tiny_corpus: Path) -> None:
    manifest = Adapter.open(tiny_adapter).manifest
    assert manifest["parents"]["corpus"]["fingerprint"] == Corpus.open(tiny_corpus).fingerprint
    assert manifest["parents"]["base_model"]["name"] == "tiny-llama"
    assert manifest["result"]["eval_loss"] > 0


def test_tokens_are_those_of_the_rows(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    result = train(TrainRequest(tiny_corpus, tmp_path / "out", recipe(tiny_model, max_steps=None, num_train_epochs=2)))
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    rows = [render(tokenizer, example) for example in read_split(Corpus.open(tiny_corpus), "train")]
    assert result.tokens == 2 * sum(len(row.ids) for row in rows)
    assert result.supervised_tokens == 2 * sum(sum(row.supervised) for row in rows)


def test_same_seed_gives_the_same_weights(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(TrainRequest(tiny_corpus, tmp_path / name, recipe(tiny_model, seed=seed, lora_dropout=0.1)))
    first, second, other = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_evaluating_between_steps_changes_no_weight(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    train(TrainRequest(tiny_corpus, tmp_path / "never", recipe(tiny_model, eval_steps=0)))
    train(TrainRequest(tiny_corpus, tmp_path / "always", recipe(tiny_model, eval_steps=1)))
    never, always = weights(tmp_path / "never"), weights(tmp_path / "always")
    assert all(torch.equal(never[name], always[name]) for name in never)
    lines = (tmp_path / "always" / "training.jsonl").read_text("utf-8").splitlines()
    assert sum("eval_loss" in line for line in lines) >= 3


def test_accumulated_batches_equal_one_big_batch(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    shapes = {"one": (8, 1), "many": (2, 4)}
    for name, (batch, accumulated) in shapes.items():
        changes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
        train(TrainRequest(tiny_corpus, tmp_path / name, recipe(tiny_model, max_steps=1, warmup_ratio=0, **changes)))
    one, many = (json.loads((tmp_path / name / "training.jsonl").read_text("utf-8").splitlines()[0]) for name in shapes)
    # The same eight rows, summed in another order in float32. The mean of the means of batches would be another loss.
    assert many["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert many["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


def test_recomputed_activations_change_no_result(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    for name, recompute in (("kept", False), ("recomputed", True)):
        train(TrainRequest(tiny_corpus, tmp_path / name, recipe(tiny_model, gradient_checkpointing=recompute)))
    plain, recomputed = weights(tmp_path / "kept"), weights(tmp_path / "recomputed")
    for name, tensor in plain.items():
        torch.testing.assert_close(recomputed[name], tensor, atol=1e-5, rtol=1e-3)


def test_progress_is_reported_step_by_step(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    train(TrainRequest(tiny_corpus, tmp_path / "out", recipe(tiny_model)), steps.append)
    assert [(step.step, step.steps) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert all(step.tokens_per_second > 0 for step in steps)
    assert steps[-1].remaining == 0


def test_text_of_rows_is_released_before_training(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    def count_examples(step: Step | None = None) -> None:
        gc.collect()
        counts.append(sum(type(value) is Example for value in gc.get_objects()))

    counts: list[int] = []
    count_examples()
    train(TrainRequest(tiny_corpus, tmp_path / "out", recipe(tiny_model, max_steps=1)), count_examples)
    assert counts[1] == counts[0]


def test_dry_run_counts_without_training(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    plan = plan_training(TrainRequest(tiny_corpus, tmp_path / "out", recipe(tiny_model, max_steps=None)))
    assert plan.rows == Corpus.open(tiny_corpus).counts["train"]
    assert plan.steps == 3 * -(-plan.rows // 8)
    assert not (tmp_path / "out").exists()


def test_long_rows_are_counted(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    plan = plan_training(TrainRequest(tiny_corpus, tmp_path / "out", recipe(tiny_model)))
    shorter = recipe(tiny_model, max_length=plan.longest - 1)
    assert plan_training(TrainRequest(tiny_corpus, tmp_path / "out", shorter)).truncated > 0


def test_row_without_room_for_its_answer_is_refused(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no answer within 8 tokens"):
        train(TrainRequest(tiny_corpus, tmp_path / "out", recipe(tiny_model, max_length=8)))
    assert list(tmp_path.iterdir()) == []


def test_diverging_run_stops_and_leaves_nothing(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken-model"
    copy_with_nan(tiny_model, broken)
    with pytest.raises(TrainingDivergedError, match="No weight had been changed before, so check the base model"):
        train(TrainRequest(tiny_corpus, tmp_path / "out", recipe(broken)))
    assert not (tmp_path / "out").exists()


def copy_with_nan(source: Path, target: Path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    save_file(tensors, target / "model.safetensors", {"format": "pt"})


def test_existing_output_is_kept(tiny_adapter: Path, tiny_model: Path, tiny_corpus: Path) -> None:
    before = (tiny_adapter / "manifest.json").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        train(TrainRequest(tiny_corpus, tiny_adapter, recipe(tiny_model)))
    assert (tiny_adapter / "manifest.json").read_bytes() == before


def test_run_uses_one_of_several_gpus(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL refuses to start if the Trainer sees two; here, what counts them says so."""
    from transformers import TrainingArguments

    count: Any = vars(TrainingArguments)["_setup_devices"]

    def set_up(arguments: Any) -> Any:
        device = count.func(arguments)
        arguments._n_gpu = 2
        return device

    devices: Any = functools.cached_property(set_up)
    devices.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", devices)
    for name in ("one", "two"):
        train(TrainRequest(tiny_corpus, tmp_path / name, recipe(tiny_model)))
        monkeypatch.undo()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_model_that_needs_code_of_its_own_is_refused_in_one_line(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "own")
    config = json.loads((tiny_model / "config.json").read_text("utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config), "utf-8")
    done = command.run("train", "--corpus", tiny_corpus, "--model", "own", "--output-dir", "adapter", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "Error: own cannot be loaded: its model type 'own' needs Python code from its own repository"
    )


def test_training_works_without_quantisation(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    result = train(TrainRequest(tiny_corpus, tmp_path / "out", recipe(tiny_model, quantization="none")))
    loaded = load_adapter(Adapter.open(result.adapter))
    assert not getattr(loaded.model, "is_loaded_in_4bit", False)
