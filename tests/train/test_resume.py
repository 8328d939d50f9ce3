"""A killed run resumes where it was, and ends like an undisturbed one."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.training_args import OptimizerNames

from finetune.errors import InputError, StoppedError
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.train import TrainRequest, plan_training, train, trainer
from finetune.train.arguments import trainer_arguments

from ..command import Command
from .kills import RECIPE, STEPS, Undisturbed, checkpoints, newest, outcome, run_with_kills, training

SEED = 4
KILLS_AT_RANDOM = 3
KILLS_WHILE_WRITING = 2


def refused(folder: Path, *arguments: object) -> str:
    """The error of a command that must be refused without changing a checkpoint."""
    before = [path.name for path in checkpoints(folder)]
    run = Command(*arguments, cwd=folder)
    assert run.wait() == 2, run.stderr
    assert "Traceback" not in run.stderr
    assert not (folder / "adapter").exists()
    assert [path.name for path in checkpoints(folder)] == before
    return run.stderr.strip().splitlines()[-1]


def test_killed_run_resumes_to_the_same_bytes(undisturbed: Undisturbed, tmp_path: Path) -> None:
    outcomes = run_with_kills(
        undisturbed.arguments,
        tmp_path,
        at_random=KILLS_AT_RANDOM,
        while_writing=KILLS_WHILE_WRITING,
        seed=SEED,
        seconds=undisturbed.seconds,
    )
    assert all(outcome == undisturbed.outcome for outcome in outcomes)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_journal_and_result_cover_the_whole_run(undisturbed: Undisturbed, killed: Path) -> None:
    name = checkpoints(killed)[-1].name
    run = Command(*undisturbed.arguments, "--resume", cwd=killed)
    assert run.wait() == 0, run.stderr
    assert run.result["resumed_from"] == name
    assert run.result["steps"] == STEPS
    assert run.result["seconds"] > 0
    assert outcome(killed) == undisturbed.outcome
    steps = [line["step"] for line in outcome(killed)["journal"] if "loss" in line]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("damage", ["missing optimizer", "flipped byte", "cut manifest", "no manifest"])
def test_damaged_checkpoint_is_skipped_for_the_one_before(undisturbed: Undisturbed, killed: Path, damage: str) -> None:
    before, last = checkpoints(killed)
    file = last / {"missing optimizer": "optimizer.pt", "flipped byte": "weights.safetensors"}.get(
        damage, "manifest.json"
    )
    if damage == "flipped byte":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "cut manifest":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()
    run = Command(*undisturbed.arguments, "--resume", cwd=killed)
    assert run.wait() == 0, run.stderr
    assert run.result["resumed_from"] == before.name
    (warning,) = [
        line for line in run.stderr.splitlines() if "Resuming from" in line and "checkpoint before it" in line
    ]
    assert file.name in warning
    assert last.name in warning
    assert outcome(killed) == undisturbed.outcome


def test_run_whose_checkpoints_are_all_damaged_is_refused(undisturbed: Undisturbed, killed: Path) -> None:
    for checkpoint in checkpoints(killed):
        (checkpoint / "optimizer.pt").unlink()
    error = refused(killed, *undisturbed.arguments, "--resume")
    assert "adapter.checkpoints" in error
    assert "optimizer.pt" in error
    assert "--overwrite" in error


def test_resume_without_a_checkpoint_starts_from_the_beginning(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    run = Command(*training(tiny_model, tiny_corpus, max_steps=1), "--resume", cwd=tmp_path)
    assert run.wait() == 0, run.stderr
    assert "starts from the beginning" in run.stderr
    assert run.result["resumed_from"] is None


def test_unfinished_run_is_not_started_again_by_accident(undisturbed: Undisturbed, killed: Path) -> None:
    error = refused(killed, *undisturbed.arguments)
    assert f"unfinished run at step {newest(killed)}" in error
    assert "--resume" in error
    assert "--overwrite" in error


def test_overwrite_starts_again(undisturbed: Undisturbed, killed: Path) -> None:
    run = Command(*undisturbed.arguments, "--overwrite", cwd=killed)
    assert run.wait() == 0, run.stderr
    assert run.result["resumed_from"] is None
    assert [path.name for path in killed.iterdir()] == ["adapter"]


def test_changed_settings_are_refused_by_name(tiny_model: Path, tiny_corpus: Path, killed: Path) -> None:
    changed = training(tiny_model, tiny_corpus, learning_rate=2e-2, lora_dropout=0.2)
    error = refused(killed, *changed, "--resume")
    assert "learning_rate was 0.01 and is now 0.02" in error
    assert "lora_dropout was 0.1 and is now 0.2" in error


def test_settings_that_no_weight_depends_on_may_change(
    tiny_model: Path, tiny_corpus: Path, undisturbed: Undisturbed, killed: Path
) -> None:
    changes = {"save_steps": 7, "save_total_limit": 1, "logging_steps": 4, "max_truncated": "7%"}
    run = Command(*training(tiny_model, tiny_corpus, **changes), "--resume", cwd=killed)
    assert run.wait() == 0, run.stderr
    assert outcome(killed)["weights"] == undisturbed.outcome["weights"]


def test_longer_run_is_refused_with_the_reason(tiny_model: Path, tiny_corpus: Path, killed: Path) -> None:
    error = refused(killed, *training(tiny_model, tiny_corpus, max_steps=STEPS + 10), "--resume")
    assert (
        f"max_steps was {STEPS} and is now {STEPS + 10} (the learning rate follows the planned length of the run)"
        in error
    )


def test_batch_may_be_divided_otherwise_but_not_be_another(
    tiny_model: Path, tiny_corpus: Path, undisturbed: Undisturbed, killed: Path
) -> None:
    other = training(tiny_model, tiny_corpus, per_device_train_batch_size=2)
    assert "an optimizer step had 12 rows and now has 6" in refused(killed, *other, "--resume")
    smaller = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 6}
    run = Command(*training(tiny_model, tiny_corpus, **smaller), "--gradient-checkpointing", "--resume", cwd=killed)
    assert run.wait() == 0, run.stderr
    assert "per_device_train_batch_size has changed from 4 to 2: the result may differ in the last bits" in run.stderr
    assert run.result["tokens"] == undisturbed.outcome["result"]["tokens"]


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_moments_in_8_bits_resume_to_the_same_bytes(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The optimizer of QLoRA on a GPU; a CPU runs it too, without paging."""

    def with_paged_moments(*arguments: Any) -> Any:
        settings = trainer_arguments(*arguments)
        settings.optim = OptimizerNames.PAGED_ADAMW_8BIT
        return settings

    monkeypatch.setattr(trainer, "trainer_arguments", with_paged_moments)
    changes = {
        "model": str(tiny_model),
        "max_steps": 6,
        "lora_r": 64,
    }  # matrices of 4,096 weights, the least for 8 bits
    recipe = AdapterRecipe.model_validate(RECIPE | changes)
    train(TrainRequest(tiny_corpus, tmp_path / "whole" / "adapter", recipe))
    request = TrainRequest(tiny_corpus, tmp_path / "stopped" / "adapter", recipe)
    with pytest.raises(StoppedError):
        train(request, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == 3 else None)
    moments = torch.load(checkpoints(tmp_path / "stopped")[-1] / "optimizer.pt", weights_only=True)
    assert torch.uint8 in {value.dtype for value in tensors_of(moments["state"])}
    train(replace(request, resume=True))
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def tensors_of(state: Any) -> list[torch.Tensor]:
    """The tensors in nested dictionaries."""
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in tensors_of(value)]
    return [state] if isinstance(state, torch.Tensor) else []


def test_resumed_run_needs_memory_for_the_batch_that_it_uses(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    """With less memory a new run would divide the batch; a resumed one keeps its division, and must fit with that."""
    recipe = AdapterRecipe(model=str(tiny_model), learning_rate=1e-2, max_steps=4)
    request = TrainRequest(tiny_corpus, tmp_path / "adapter", recipe, memory=2**36)
    planned = plan_training(request).memory
    assert planned is not None
    with pytest.raises(StoppedError):
        train(request, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == 2 else None)
    less = replace(request, resume=True, memory=planned.peak_bytes - 1)
    smaller = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    with pytest.raises(InputError, match="--per-device-train-batch-size 4 --gradient-accumulation-steps 2"):
        train(less)
    result = train(replace(less, recipe=recipe.model_copy(update=smaller)))
    assert result.resumed_from == "checkpoint-2"


def test_changed_corpus_is_refused(tiny_model: Path, undisturbed: Undisturbed, killed: Path, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) + "\n" for n in range(60))
    (tmp_path / "rows.jsonl").write_text(rows, "utf-8")
    prepare(PrepareRequest(tmp_path / "other", sources=(str(tmp_path / "rows.jsonl"),), license="cc0-1.0"))
    assert "the fingerprint of the corpus was" in refused(killed, *training(tiny_model, tmp_path / "other"), "--resume")


def test_changed_base_model_is_refused(tiny_model: Path, tiny_corpus: Path, killed: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(tiny_model, tmp_path / "tiny-llama")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] += 1e-3
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    error = refused(killed, *training(other, tiny_corpus), "--resume")
    assert "the fingerprint of the base model's weights was" in error


def test_changed_chat_template_is_refused(tiny_model: Path, tiny_corpus: Path, killed: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_model, tmp_path / "tiny-llama")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("message['role']", "message['role'] + ' '"), "utf-8")
    error = refused(killed, *training(other, tiny_corpus), "--resume")
    assert "chat template" in error


def test_finished_run_is_reported_and_not_trained_again(
    tiny_model: Path, tiny_corpus: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """A script that repeats the command until its exit code is 0 must end, wherever the last kill was."""
    arguments = training(tiny_model, tiny_corpus, max_steps=2)
    first = Command(*arguments, "--resume", cwd=tmp_path)
    assert first.wait() == 0, first.stderr
    (tmp_path / "adapter.checkpoints" / "checkpoint-2").mkdir(parents=True)  # killed while it was being removed
    again = Command(*arguments, "--resume", cwd=tmp_path)
    assert again.wait() == 0, again.stderr
    assert "already complete" in again.stderr
    assert again.result == first.result
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    other = Command(*training(tiny_model, tiny_corpus, max_steps=3), "--resume", cwd=tmp_path)
    assert other.wait() == 2
    assert "--overwrite" in other.stderr


def test_leftovers_of_killed_runs_are_removed(undisturbed: Undisturbed, killed: Path) -> None:
    (killed / ".adapter.0123abcd.tmp").mkdir()
    (killed / "adapter.checkpoints" / ".checkpoint-12.abcdefgh.tmp").mkdir()
    assert Command(*undisturbed.arguments, "--resume", cwd=killed).wait() == 0
    assert [path.name for path in killed.iterdir()] == ["adapter"]


def test_checkpoints_are_private_and_name_no_path(killed: Path, tiny_model: Path) -> None:
    assert (killed / "adapter.checkpoints").stat().st_mode & 0o777 == 0o700
    for file in checkpoints(killed)[-1].iterdir():
        assert str(tiny_model.parent).encode() not in file.read_bytes(), file
        assert str(killed.parent).encode() not in file.read_bytes(), file


def test_no_more_checkpoints_are_kept_than_the_limit(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    run = Command(*training(tiny_model, tiny_corpus, save_total_limit=1), cwd=tmp_path)
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, len(checkpoints(tmp_path)))
        return False

    run.until(look)
    assert run.wait() == 0
    assert most in (1, 2)  # the new one is written before the old one is removed
