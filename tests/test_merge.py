"""A merged model is its adapter, or it is not handed out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraModel

from finetune.artifacts import Adapter, Model
from finetune.errors import CheckFailedError
from finetune.merge import MergeRequest, MergeResult, Trace, distance, merge_adapter
from finetune.models.load import load_merged


@pytest.fixture(scope="module")
def result(tiny_adapter: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> MergeResult:
    return merge_adapter(MergeRequest(tiny_adapter, tmp_path_factory.mktemp("merged") / "model", tiny_corpus))


def test_merged_model_equals_the_adapter_over_the_same_weights(result: MergeResult) -> None:
    assert result.verified
    assert result.exact.max_abs_logit_diff < 1e-3
    assert result.exact.greedy_agreement == 1.0
    assert result.drift.mean_kl == result.mean_kl


def test_merged_weights_are_pefts(result: MergeResult, tiny_adapter: Path, tiny_model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(tiny_adapter))
    expected = plain.merge_and_unload().state_dict()
    found = AutoModelForCausalLM.from_pretrained(result.model).state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)


def test_merged_folder_stands_alone(result: MergeResult, tiny_adapter: Path) -> None:
    model = Model.open(result.model)
    assert model.manifest["parents"]["adapter"]["fingerprint"] == Adapter.open(tiny_adapter).fingerprint
    loaded = load_merged(model)
    assert loaded.tokenizer.chat_template
    assert loaded.tokenizer.eos_token_id in loaded.model.generation_config.eos_token_id


def test_wrong_merge_is_not_handed_out(
    tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_right = LoraModel.merge_and_unload

    def merge_wrong(self: LoraModel, **options: Any) -> Any:
        merged: Any = merge_right(self, **options)
        merged.model.layers[0].mlp.down_proj.weight.data.zero_()
        return merged

    monkeypatch.setattr(LoraModel, "merge_and_unload", merge_wrong)
    with pytest.raises(CheckFailedError, match="not the adapter over the same weights"):
        merge_adapter(MergeRequest(tiny_adapter, tmp_path / "model", tiny_corpus))
    assert list(tmp_path.iterdir()) == []


def test_distance_sees_a_difference() -> None:
    left = Trace([torch.tensor([[1.0, 2.0, 3.0]])], [[1, 2, 3]])
    right = Trace([torch.tensor([[3.0, 2.0, 1.0]])], [[1, 5]])
    far = distance(left, right)
    assert far.max_abs_logit_diff == 2.0
    assert far.greedy_agreement == pytest.approx(1 / 3)
    p, q = torch.tensor([1.0, 2.0, 3.0]).softmax(0), torch.tensor([3.0, 2.0, 1.0]).softmax(0)
    assert far.mean_kl == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert distance(left, left).mean_kl == pytest.approx(0, abs=1e-7)
