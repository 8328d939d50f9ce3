"""The closest merge is kept, and one that is not close enough only if the user says so."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, Model
from finetune.errors import CheckFailedError, InputError
from finetune.merge import MergeRequest, candidate, merge_adapter
from finetune.models.chat_template import end_of_turn_ids
from finetune.models.load import load_merged

from ..command import run as slmtune
from ..encoders import NEWS, write_encoder, write_encoder_adapter
from .test_combine import write_adapter


def refuse_any_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "MAX_SAME_KL", -1.0)


def test_drift_is_refused_and_leaves_nothing(
    tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_any_drift(monkeypatch)
    with pytest.raises(CheckFailedError, match=r"Nothing was written.*--allow-drift"):
        merge_adapter(MergeRequest(tiny_adapter, tmp_path / "model"))
    assert list(tmp_path.iterdir()) == []


def test_drift_is_kept_on_demand_and_marked(
    tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_any_drift(monkeypatch)
    result = merge_adapter(MergeRequest(tiny_adapter, tmp_path / "model", allow_drift=True))
    assert not result.verified
    assert Model.open(tmp_path / "model").manifest["verification"]["verified"] is False
    assert "not verified" in (tmp_path / "model" / "README.md").read_text("utf-8")


def test_dry_run_measures_both_merges_and_writes_nothing(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    done = slmtune("merge", tiny_adapter, "--corpus", tiny_corpus, "--output-dir", "model", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:4]] == ["original", "dequantized", "(adapter)"]
    assert "not written (--dry-run)" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_barely_trained_adapter_is_not_refused_for_rounding(tiny_model: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(base)
    adapter = write_adapter(tmp_path / "adapter", base, seed=1, std=1e-3)
    result = merge_adapter(MergeRequest(adapter, tmp_path / "model"))
    assert result.verified
    assert result.mean_kl > 0


def test_form_of_the_base_can_be_chosen(tiny_adapter: Path, tmp_path: Path) -> None:
    for onto in ("original", "dequantized"):
        options: dict[str, Any] = {"onto": onto}
        result = merge_adapter(MergeRequest(tiny_adapter, tmp_path / onto, **options))
        assert result.onto == onto
        assert [one.onto for one in result.candidates] == [onto]
        assert Model.open(tmp_path / onto).config["onto"] == onto


def test_merge_knows_where_a_turn_ends(tiny_adapter: Path, tmp_path: Path) -> None:
    merge_adapter(MergeRequest(tiny_adapter, tmp_path / "model", onto="original"))
    loaded = load_merged(Model.open(tmp_path / "model"))
    assert loaded.model.generation_config.eos_token_id == end_of_turn_ids(loaded.tokenizer)


def test_adapter_over_unquantised_weights_has_nothing_to_dequantise(tmp_path: Path) -> None:
    adapter = write_encoder_adapter(tmp_path / "adapter", write_encoder(tmp_path / "bert", "bert"), NEWS)
    assert Adapter.open(adapter).config["quantization"] == "none"
    with pytest.raises(InputError, match="trained over unquantised weights"):
        merge_adapter(MergeRequest(adapter, tmp_path / "model", onto="dequantized"))
    assert [one.onto for one in merge_adapter(MergeRequest(adapter, tmp_path / "model")).candidates] == ["original"]
