"""Training on a GPU: what the CPU tests promise holds there too. `make gpu` runs these; without a GPU they are skipped."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.artifacts import Adapter
from finetune.errors import StoppedError
from finetune.evaluate import EvalRequest, evaluate
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.load import load_adapter
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.recipe.adapter import Quantization
from finetune.train import TrainRequest, train

from .command import run
from .train.kills import RECIPE, outcome, training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def recipe(model: Path, **changes: Any) -> AdapterRecipe:
    return AdapterRecipe.model_validate(RECIPE | {"model": str(model), "max_steps": 6} | changes)


def losses(adapter: Path) -> list[float]:
    lines = [json.loads(line) for line in (adapter / "training.jsonl").read_text("utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that add in the same order each time, where there are any."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def test_three_steps_equal_those_of_a_cpu(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    plain = {"max_steps": 3, "logging_steps": 1, "lora_dropout": 0, "compute_dtype": "float32"}
    for name, environment in (("cpu", {"CUDA_VISIBLE_DEVICES": ""}), ("gpu", {"PYTHONUNBUFFERED": "1"})):
        (tmp_path / name).mkdir()
        arguments = [*training(tiny_model, tiny_corpus, **plain), "--no-load-in-4bit"]
        done = run(*arguments, cwd=tmp_path / name, env=environment)
        assert done.returncode == 0, done.stderr
    expected = losses(tmp_path / "cpu" / "adapter")
    assert losses(tmp_path / "gpu" / "adapter") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_bfloat16_follows_float32(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, quantization: Quantization
) -> None:
    for dtype in ("float32", "bfloat16"):
        settings = recipe(tiny_model, compute_dtype=dtype, quantization=quantization)
        result = train(TrainRequest(tiny_corpus, tmp_path / dtype, settings))
        assert next(load_adapter(Adapter.open(result.adapter)).model.parameters()).is_cuda
    assert losses(tmp_path / "bfloat16") == pytest.approx(losses(tmp_path / "float32"), rel=5e-2)


@pytest.mark.filterwarnings("ignore:.*deterministic")
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_stopped_run_resumes_to_the_same_bytes(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, deterministic: None, quantization: Quantization
) -> None:
    settings = recipe(tiny_model, quantization=quantization, lora_r=64)  # moments in 8 bits begin at 4,096 weights
    train(TrainRequest(tiny_corpus, tmp_path / "whole" / "adapter", settings))
    request = TrainRequest(tiny_corpus, tmp_path / "stopped" / "adapter", settings)
    with pytest.raises(StoppedError):
        train(request, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == 3 else None)
    train(replace(request, resume=True))
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_full_memory_divides_the_batch(tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """64 rows of 200 tokens and more take some hundred megabytes in one pass."""
    rows = "".join(json.dumps({"question": f"What is {n}? " * 20, "answer": f"It is {n}."}) + "\n" for n in range(64))
    (tmp_path / "rows.jsonl").write_text(rows, "utf-8")
    source = str(tmp_path / "rows.jsonl")
    prepare(PrepareRequest(tmp_path / "corpus", sources=(source,), license="cc0-1.0", dedup=False, split_ratio="1/0/0"))
    settings = recipe(
        tiny_model, per_device_train_batch_size=64, gradient_accumulation_steps=1, max_steps=2, packing=False
    )
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**27) / total)
    try:
        result = train(TrainRequest(tmp_path / "corpus", tmp_path / "adapter", settings))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.steps == 2
    assert "Memory is full with 64 rows per forward pass" in caplog.text


def test_adapter_is_evaluated_and_merged(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    assert losses(tiny_adapter)[-1] < losses(tiny_adapter)[0] / 2
    evaluated = evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "eval", forgetting=False))
    assert evaluated.tasks["news"].delta > 0
    merged = merge_adapter(MergeRequest(tiny_adapter, tmp_path / "model", tiny_corpus))
    assert merged.drift.mean_kl < 0.02
