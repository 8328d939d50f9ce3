"""A corpus with as many held-out rows as training rows, and adapters that have and have not learnt it by heart."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.audit import AuditRequest, AuditResult, audit
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.train import TrainRequest, train

WORDS = "bank outlook profit rose shares fell costs grew raised bearish bullish after maybe neutral yes".split()
EACH = 104  # training rows, and held-out ones: at least 100


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> PrepareRequest:
    """The preparation of questions whose answers are random words, and of canaries."""
    folder, draw = tmp_path_factory.mktemp("audited"), random.Random(5)
    rows = [
        {
            "question": f"What does note {number} say?",
            "answer": " ".join(draw.choices(WORDS, k=14)),
            "split": "train" if number % 2 else "test",
        }
        for number in range(2 * EACH)
    ]
    file = folder / "notes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    request = PrepareRequest(
        folder / "corpus",
        sources=(str(file),),
        near_duplicates=1,
        quality=False,
        license="cc0-1.0",
        canaries=24,
        canary_seed=4,
    )
    prepare(request)
    return request


def train_on(corpus: Path, folder: Path, model: Path, **settings: Any) -> Path:
    recipe = AdapterRecipe(
        model=str(model),
        quantization="none",
        per_device_train_batch_size=16,
        gradient_accumulation_steps=1,
        lora_r=32,
        eval_steps=0,
        **settings,
    )
    train(TrainRequest(corpus, folder, recipe))
    return folder


def run_audit(audited: PrepareRequest, adapter: Path, name: str, **options: Any) -> AuditResult:
    request = AuditRequest(
        adapter, audited.folder, audited.folder.with_name(name), audited.key_path, max_new_tokens=20, samples=16
    )
    return audit(replace(request, **options))


@pytest.fixture(scope="session")
def overfitted(audited: PrepareRequest, tiny_model: Path) -> Path:
    folder = audited.folder.with_name("overfitted")
    return train_on(audited.folder, folder, tiny_model, num_train_epochs=25, learning_rate=1e-2)


@pytest.fixture(scope="session")
def one_epoch(audited: PrepareRequest, tiny_model: Path) -> Path:
    folder = audited.folder.with_name("one-epoch")
    return train_on(audited.folder, folder, tiny_model, num_train_epochs=1, learning_rate=1e-3)


@pytest.fixture(scope="session")
def overfitted_audit(audited: PrepareRequest, overfitted: Path) -> AuditResult:
    return run_audit(audited, overfitted, "audit-overfitted")


@pytest.fixture(scope="session")
def one_epoch_audit(audited: PrepareRequest, one_epoch: Path) -> AuditResult:
    return run_audit(audited, one_epoch, "audit-one-epoch")


@pytest.fixture(scope="session")
def foreign_audit(audited: PrepareRequest, tiny_model: Path, tiny_corpus: Path) -> AuditResult:
    """Of an adapter that has not seen a single row of the corpus."""
    folder = audited.folder.with_name("foreign")
    return run_audit(
        audited, train_on(tiny_corpus, folder, tiny_model, max_steps=2, learning_rate=1e-3), "audit-foreign"
    )
