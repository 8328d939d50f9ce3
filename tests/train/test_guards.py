"""What training prevents: two runs in one folder, losses from a full disk, non-finite values, many truncated rows."""

from __future__ import annotations

import functools
import json
import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.errors import DiskFullError, InputError, TrainingDivergedError
from finetune.models.chat_template import render
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe, load_adapter_recipe
from finetune.train import TrainRequest, plan_training, train
from finetune.train.checkpoints.checkpoint import Checkpoints
from finetune.train.checkpoints.disk import CHECKPOINT_REST, LINE_BYTES, checkpoint_bytes, make_room
from finetune.train.journal import Journal
from finetune.train.progress import SCORES, Counts

from ..command import Command
from .kills import Undisturbed, outcome, training


def test_second_run_into_a_folder_is_refused_during_the_first(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    arguments = training(tiny_model, tiny_corpus, max_steps=100_000, eval_steps=0)
    first = Command(*arguments, cwd=tmp_path)
    assert first.until(lambda: list(tmp_path.glob("adapter.checkpoints/checkpoint-*"))), first.stderr
    for flag in ("--resume", "--overwrite"):
        second = Command(*arguments, flag, cwd=tmp_path)
        assert second.wait() == 2
        assert f"(process {first.pid}) is writing to adapter" in second.stderr
    assert first.running
    first.kill()
    third = Command(*arguments, "--resume", cwd=tmp_path)
    assert third.until(lambda: "Resuming from" in third.stderr), third.stderr
    third.kill()


def test_run_that_cannot_fit_on_the_disk_is_refused(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=1, save_total_limit=10**9)
    with pytest.raises(InputError, match=r"has [\d.]+ \w+ free, but 1000000001 checkpoints .* need [\d.]+ GiB"):
        train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe))
    assert list(tmp_path.iterdir()) == []


def test_older_checkpoints_but_one_are_dropped_if_space_is_short(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    with pytest.raises(DiskFullError, match=r"step 8: [\d.]+ \w+ are free .* [\d.]+ [GM]iB are needed"):
        make_room(Checkpoints(tmp_path, 3, {}), 8, 10**16)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-6"]


def test_estimate_is_at_least_the_size_of_a_checkpoint(undisturbed: Undisturbed, killed: Path) -> None:
    weights = load_file(next(killed.glob("adapter.checkpoints/checkpoint-*")) / "weights.safetensors")
    trainable = sum(tensor.numel() for tensor in weights.values())
    for checkpoint in killed.glob("adapter.checkpoints/checkpoint-*"):
        size = sum(file.stat().st_size for file in checkpoint.iterdir())
        lines = len((checkpoint / "training.jsonl").read_text("utf-8").splitlines())
        bound = checkpoint_bytes(trainable, lines, with_best=(checkpoint / "best.safetensors").exists())
        assert bound - CHECKPOINT_REST - lines * LINE_BYTES < size <= bound
        assert json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))["log_history"] == []


def test_no_line_of_the_journal_is_longer_than_estimated(tmp_path: Path) -> None:
    """A long run that logs every step has megabytes of them in each checkpoint."""
    journal = Journal(tmp_path / "training.jsonl", None, ())
    journal.counts = Counts(tokens=10**13, computed_tokens=10**13, supervised_tokens=10**13)
    state = SimpleNamespace(global_step=10**9, epoch=1e5 / 3)
    journal.write(state, {"loss": 1e-5 / 3, "grad_norm": 1e-5 / 3, "learning_rate": 1e-5 / 3})
    journal.write(state, {f"eval_{name}": 1e-5 / 3 for name in ("loss", *SCORES)})
    assert all(len(line) < LINE_BYTES for line in journal.file.read_text("utf-8").splitlines())


def test_truncated_held_out_rows_are_counted(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    longest = max(len(render(tokenizer, row).ids) for row in read_split(Corpus.open(tiny_corpus), "validation"))
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=1, max_length=longest - 1, max_truncated=1)
    result = train(TrainRequest(tiny_corpus, tmp_path / "out", recipe))
    assert result.held_out_truncated > 0
    assert "rows of the validation split are longer than --max-length" in caplog.text


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.pt"])
def test_full_disk_costs_no_checkpoint(undisturbed: Undisturbed, killed: Path, file: str) -> None:
    folder = killed / "adapter.checkpoints"
    before = sorted(path.name for path in folder.glob("checkpoint-*"))
    size = next(folder.glob("checkpoint-*")).joinpath(file).stat().st_size
    limited = Command(
        *undisturbed.arguments, "--resume", cwd=killed, before=functools.partial(limit_files, size * 3 // 4)
    )
    assert limited.wait() == 1, limited.stderr
    assert "Traceback" not in limited.stderr
    assert "for lack of space" in limited.stderr.strip().splitlines()[-1]
    assert sorted(path.name for path in folder.iterdir()) == [*before, "lock"]
    run = Command(*undisturbed.arguments, "--resume", cwd=killed)
    assert run.wait() == 0, run.stderr
    assert outcome(killed) == undisturbed.outcome


def test_non_finite_values_are_traced_to_step_and_rows(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    """A weight that only some rows use is NaN; the step with these rows is refused before the optimizer runs."""
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    examples = read_split(Corpus.open(tiny_corpus), "train")
    tokenizer = load_tokenizer(broken, find_base(str(broken)))
    used = [set(render(tokenizer, example).ids) for example in examples]
    token = min(set.union(*used), key=lambda token: (sum(token in tokens for tokens in used), token))
    guilty = {example.id for example, tokens in zip(examples, used, strict=True) if token in tokens}
    tensors = load_file(broken / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.embed_tokens.weight"][token] = torch.nan
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    config = json.loads((broken / "config.json").read_text("utf-8"))
    (broken / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}), "utf-8")
    recipe = AdapterRecipe(model=str(broken), per_device_train_batch_size=2, save_steps=1, eval_steps=0)
    out = tmp_path / "adapter"
    with pytest.raises(TrainingDivergedError, match=r"at step \d+: its loss is not finite \(rows .*\)") as caught:
        train(TrainRequest(tiny_corpus, out, recipe))
    assert any(name in str(caught.value) for name in guilty)
    step = int(str(caught.value).split("at step ")[1].split(":")[0])
    assert not out.exists()
    for checkpoint in tmp_path.glob("adapter.checkpoints/checkpoint-*"):
        assert int(checkpoint.name.split("-")[1]) < step
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(checkpoint / "weights.safetensors").values())


def test_weights_that_are_not_finite_reach_no_checkpoint(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    """A finite gradient may still make a weight overflow; here, the optimizer's second step does."""
    steps = []

    def overflow(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        steps.append(optimizer)
        if len(steps) == 2:
            optimizer.param_groups[0]["params"][0].data[0] = torch.inf

    recipe = AdapterRecipe(model=str(tiny_model), max_steps=3, save_steps=1, eval_steps=0)
    hook = register_optimizer_step_post_hook(overflow)
    try:
        with pytest.raises(TrainingDivergedError, match=r"at step 2: .*lora_A.* is not finite"):
            train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe))
    finally:
        hook.remove()
    assert [path.name for path in tmp_path.glob("adapter.checkpoints/checkpoint-*")] == ["checkpoint-1"]


def test_more_truncated_rows_than_allowed_are_refused(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    plan = plan_training(TrainRequest(tiny_corpus, tmp_path / "out", AdapterRecipe(model=str(tiny_model))))
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=1, max_length=plan.longest - 1, max_truncated=0)
    with pytest.raises(InputError, match=rf"\d+ of {plan.rows} rows are longer .* longest has {plan.longest}"):
        train(TrainRequest(tiny_corpus, tmp_path / "out", recipe))
    assert list(tmp_path.iterdir()) == []
    allowed = recipe.model_copy(update={"max_truncated": 1.0})
    assert train(TrainRequest(tiny_corpus, tmp_path / "out", allowed)).truncated > 0


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), ("100%", 1), (0.2, 0.2), ("0", 0)])
def test_share_may_be_a_percentage(text: object, share: float) -> None:
    assert load_adapter_recipe(None, overrides={"max_truncated": text}).max_truncated == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "120%", "-1%", "few", "x%"])
def test_invalid_shares_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="max_truncated"):
        load_adapter_recipe(None, overrides={"max_truncated": text})
