"""Full memory: the batch is divided, the optimizer step stays the same, and the run goes on."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.errors import MemoryFullError
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.train import Step, TrainRequest, train
from finetune.train.fast.loss import summed_loss
from finetune.train.objectives import generation

from ..command import Command
from .kills import RECIPE, checkpoints, outcome, training


def fill_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def fill_main_memory() -> None:
    torch.empty(2**50)  # more than any machine has: torch's own error


def fill_python() -> None:
    raise MemoryError


def recipe(model: Path, **changes: object) -> AdapterRecipe:
    return AdapterRecipe.model_validate(RECIPE | {"model": str(model), "max_steps": 4} | changes)


@pytest.fixture
def limit_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let memory be full whenever more than `rows` rows pass through the model, after `passes` such passes."""

    def limit(rows: int, passes: int = 0, fill: Callable[[], None] = fill_gpu, *, evaluating: bool = False) -> None:
        left = [passes]

        def loss_with_limit(causal: Any, batch: dict[str, Any]) -> torch.Tensor:
            if len(batch["rows"]) > rows and causal.training is not evaluating:
                left[0] -= 1
                if left[0] < 0:
                    fill()
            return summed_loss(causal, batch)

        monkeypatch.setattr(generation, "summed_loss", loss_with_limit)

    return limit


@pytest.mark.parametrize("fill", [fill_gpu, fill_main_memory, fill_python])
def test_step_is_repeated_in_smaller_passes_with_the_same_result(
    tiny_model: Path,
    tiny_corpus: Path,
    tmp_path: Path,
    limit_memory: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    fill: Callable[[], None],
) -> None:
    """Memory fills up in the second pass of a step: the gradients and the dropout masks of the first must not count."""
    smaller = recipe(tiny_model, per_device_train_batch_size=2, gradient_accumulation_steps=6)
    train(TrainRequest(tiny_corpus, tmp_path / "small" / "adapter", smaller))
    limit_memory(2, passes=1, fill=fill)
    train(TrainRequest(tiny_corpus, tmp_path / "large" / "adapter", recipe(tiny_model)))
    assert outcome(tmp_path / "large") == outcome(tmp_path / "small")
    (line,) = [record.message for record in caplog.records if "Memory is full" in record.message]
    assert "with 4 rows per forward pass: going on with 2, in 6 passes per optimizer step" in line


def limit_address_space() -> None:
    """350 MB more than the process has: not enough for the activations of 64 rows of 400 tokens, plenty for a few rows."""
    torch.set_num_threads(1)  # each thread reserves address space of its own
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    size = pages * resource.getpagesize() + 350 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


@pytest.mark.skipif(sys.platform != "linux", reason="limits on the address space are Linux's")
def test_run_under_a_limit_of_the_system_ends_with_an_adapter(tiny_model: Path, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"question": f"What is {n}? " * 38, "answer": f"It is {n}."}) + "\n" for n in range(64))
    (tmp_path / "rows.jsonl").write_text(rows, "utf-8")
    source = str(tmp_path / "rows.jsonl")
    prepare(PrepareRequest(tmp_path / "corpus", sources=(source,), license="cc0-1.0", dedup=False, split_ratio="1/0/0"))
    batch = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 1, "max_steps": 1}
    arguments = training(tiny_model, tmp_path / "corpus", **batch)
    run = Command(*arguments, "--no-packing", cwd=tmp_path, before=limit_address_space)
    assert run.wait() == 0, run.stderr
    assert "Memory is full with 64 rows per forward pass" in run.stderr
    assert run.result["steps"] == 1


def test_full_memory_in_an_evaluation_changes_no_weight(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, limit_memory: Callable[..., None]
) -> None:
    settings = recipe(tiny_model, eval_steps=1000)  # after the last step only
    train(TrainRequest(tiny_corpus, tmp_path / "plain" / "adapter", settings))
    limit_memory(1, evaluating=True)
    train(TrainRequest(tiny_corpus, tmp_path / "full" / "adapter", settings))
    plain, full = outcome(tmp_path / "plain"), outcome(tmp_path / "full")
    assert full["weights"] == plain["weights"]
    assert full["result"]["eval_loss"] == pytest.approx(plain["result"]["eval_loss"], rel=1e-6)


def test_checkpoints_record_the_division(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, limit_memory: Callable[..., None]
) -> None:
    batches = []

    def on_step(step: Step) -> None:
        for checkpoint in checkpoints(tmp_path):
            manifest = json.loads((checkpoint / "manifest.json").read_text("utf-8"))
            batches.append(manifest["machine"]["batch"])

    limit_memory(1)
    train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe(tiny_model)), on_step)
    assert batches[-1] == {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 12}


def test_row_that_does_not_fit_ends_the_run_and_keeps_the_last_checkpoint(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, limit_memory: Callable[..., None]
) -> None:
    request = TrainRequest(
        tiny_corpus, tmp_path / "adapter", recipe(tiny_model, per_device_train_batch_size=1), resume_command="again"
    )
    limit_memory(0, passes=7)  # two steps of three passes
    with pytest.raises(MemoryFullError) as caught:
        train(request)
    assert caught.value.exit_code == 1
    assert f"The last checkpoint is step 2 in {tmp_path / 'adapter.checkpoints'}. Resume with: again" in str(
        caught.value
    )
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-2"]
    assert not (tmp_path / "adapter").exists()


def test_first_row_that_does_not_fit_leaves_nothing(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, limit_memory: Callable[..., None]
) -> None:
    limit_memory(0)
    with pytest.raises(MemoryFullError, match="Add --gradient-checkpointing, lower --max-length"):
        train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe(tiny_model)))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_taken_for_full_memory(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, limit_memory: Callable[..., None]
) -> None:
    def fail() -> None:
        raise RuntimeError("shapes do not match")

    limit_memory(0, fill=fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe(tiny_model)))


@pytest.mark.parametrize(("batch", "half"), [((8, 1), (4, 2)), ((6, 2), (3, 4)), ((9, 1), (3, 3)), ((5, 2), (1, 10))])
def test_half_a_batch_keeps_the_rows_per_step(batch: tuple[int, int], half: tuple[int, int]) -> None:
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    smaller = next(AdapterRecipe.model_validate(dict(zip(names, batch, strict=True))).smaller_passes())
    assert tuple(getattr(smaller, name) for name in names) == half
    assert not list(AdapterRecipe(per_device_train_batch_size=1).smaller_passes())
