"""A merged model equals its adapter, or it is not written."""

from __future__ import annotations

import functools
import gc
import json
import math
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from finetune.artifacts import Adapter, Model
from finetune.merge import Distance, MergeRequest, MergeResult, distance, held_out, merge_adapter
from finetune.merge.distance import RunningDistance, Trace
from finetune.merge.held_out import choose_rows, count_bundled
from finetune.models.find import find_base
from finetune.models.load import load_merged
from finetune.models.tokenizer import load_tokenizer
from finetune.records import Example, Message, ToolCall
from finetune.scoring.label_tasks import label_tasks_of

from ..command import Command
from ..conftest import chat
from ..corpora import write_corpus


@pytest.fixture(scope="module")
def result(tiny_adapter: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> MergeResult:
    return merge_adapter(MergeRequest(tiny_adapter, tmp_path_factory.mktemp("merged") / "model", tiny_corpus))


def test_merge_onto_what_the_adapter_saw_is_kept_because_it_is_the_closest(result: MergeResult) -> None:
    assert result.verified
    assert result.drift.max_abs_logit_diff < 1e-3
    assert result.drift.greedy_agreement == 1.0
    assert result.onto == "dequantized"
    original, dequantized = result.candidates
    assert dequantized.distance.mean_kl == result.drift.mean_kl == result.mean_kl < 1e-6 < original.distance.mean_kl
    assert result.drift.loss == pytest.approx(result.drift.adapter_loss, abs=1e-5)
    assert dequantized.score == result.adapter_score


def test_merged_weights_equal_those_of_peft(tiny_adapter: Path, tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(tiny_adapter))
    expected = plain.merge_and_unload().state_dict()
    result = merge_adapter(MergeRequest(tiny_adapter, tmp_path / "model", onto="original"))
    merged = AutoModelForCausalLM.from_pretrained(result.model).state_dict()
    assert set(merged) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, atol=1e-5, rtol=0)


def test_merged_folder_needs_no_other_files(result: MergeResult, tiny_adapter: Path) -> None:
    model = Model.open(result.model)
    assert model.manifest["parents"]["adapter"]["fingerprint"] == Adapter.open(tiny_adapter).fingerprint
    assert label_tasks_of(model.manifest) == label_tasks_of(Adapter.open(tiny_adapter).manifest) != ()
    loaded = load_merged(model)
    assert loaded.tokenizer.chat_template
    assert loaded.tokenizer.eos_token_id in loaded.model.generation_config.eos_token_id


def test_any_row_that_the_template_renders_is_a_prompt(tiny_model: Path, tmp_path: Path) -> None:
    call = Message("assistant", "", (ToolCall("add", '{"a": 1}'),))
    pair = Example("pair", chat("Up?", "Yes."), "preference", rejected=chat("Up?", "No."))
    rows = [pair, Example("tools", (*chat("1 + 1?"), call), "chat"), Example("text", chat("Up?", "Yes.")[1:], "text")]
    corpus = write_corpus(tmp_path / "corpus", {"test": rows}).path
    chosen = choose_rows(corpus, load_tokenizer(tiny_model, find_base(str(tiny_model))), None)
    assert [row.id for row in chosen if not row.id.startswith("general_rows")] == ["pair"]
    assert len(chosen) == len({row.id for row in chosen}) == held_out.ROWS
    assert count_bundled(chosen) == held_out.ROWS - 1


def test_logits_in_memory_do_not_grow_with_the_prompts(
    tiny_adapter: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distance, "GREEDY_TOKENS", 2)
    gc.freeze()  # looks at objects that are new only
    vocabulary = json.loads((tiny_model / "config.json").read_text("utf-8"))["vocab_size"]
    peaks = []
    for rows in (3, 12):
        examples = [
            Example(f"row-{number}", chat("What is inflation?", "Prices rose."), "qa") for number in range(rows)
        ]
        corpus = write_corpus(tmp_path / f"corpus-{rows}", {"test": examples}).path
        request = MergeRequest(tiny_adapter, tmp_path / f"model-{rows}", corpus, rows=rows)
        peaks.append(peak_of_logits(request, vocabulary))
    assert peaks[0] == peaks[1] > 0


def peak_of_logits(request: MergeRequest, vocabulary: int) -> int:
    """The maximum number of bytes of logits in memory after any forward pass of a merge."""
    sizes = []

    def measure(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Linear) and module.out_features == vocabulary:
            sizes.append(bytes_of_logits(vocabulary))

    with register_module_forward_hook(measure):
        merge_adapter(request)
    return max(sizes)


def bytes_of_logits(vocabulary: int) -> int:
    """Bytes of the tensors in memory that may be logits: those of a multiple of the vocabulary, without parameters."""
    tensors = [one for one in gc.get_objects() if type(one) is torch.Tensor]
    return sum(one.nbytes for one in tensors if one.is_floating_point() and one.numel() % vocabulary == 0)


def test_full_disk_is_reported_and_leaves_nothing(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    smaller_than_a_trace = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1000, 1000))
    arguments = ("merge", tiny_adapter, "--corpus", tiny_corpus, "--output-dir", "model")
    limited = Command(*arguments, cwd=tmp_path, before=smaller_than_a_trace)
    assert limited.wait() == 1, limited.stderr
    error = limited.stderr.strip().splitlines()[-1]
    assert "Writing failed for lack of space" in error
    assert error.endswith("or choose another --output-dir")
    assert list(tmp_path.iterdir()) == []


def compare(*pairs: tuple[Trace, Trace]) -> Distance:
    comparison = RunningDistance()
    for one, other in pairs:
        comparison.add(one, other)
    return comparison.distance()


def logits_only(logits: torch.Tensor) -> Trace:
    return Trace(logits, torch.empty(0, dtype=torch.long))


def test_running_distance_equals_that_of_all_prompts_at_once() -> None:
    torch.manual_seed(0)
    one, other = 5 * torch.randn(40, 300), 5 * torch.randn(40, 300)
    splits = zip(one.split(9), other.split(9), strict=True)
    parts = [(logits_only(ours), logits_only(theirs)) for ours, theirs in splits]
    distance = compare(*parts)
    gap, ours, theirs = (one - other).abs(), one.log_softmax(-1), other.log_softmax(-1)
    assert distance.prompts == len(parts)
    assert distance.max_abs_logit_diff == float(gap.max())
    assert distance.mean_abs_logit_diff == pytest.approx(float(gap.mean()), rel=1e-6)
    assert distance.mean_kl == pytest.approx(float((ours.exp() * (ours - theirs)).sum(-1).mean()), rel=1e-6)


def test_distance_sees_a_difference() -> None:
    one = Trace(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([1, 2, 3]))
    other = Trace(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([1, 5]))
    far = compare((one, other))
    assert far.max_abs_logit_diff == 2.0
    assert far.greedy_agreement == pytest.approx(1 / 3)
    p, q = torch.tensor([1.0, 2.0, 3.0]).softmax(0), torch.tensor([3.0, 2.0, 1.0]).softmax(0)
    assert far.mean_kl == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert compare((one, one)).mean_kl == pytest.approx(0, abs=1e-7)


def test_non_finite_logits_of_one_prompt_show_in_every_figure() -> None:
    whole, broken = logits_only(torch.ones(2, 3)), logits_only(torch.tensor([[1.0, math.nan, 1.0]]))
    far = compare((whole, whole), (broken, broken), (whole, whole))
    assert math.isnan(far.max_abs_logit_diff)
    assert math.isnan(far.mean_abs_logit_diff)
    assert math.isnan(far.mean_kl)
