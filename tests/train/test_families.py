"""Every family trains through the product's own loader, exactly, from corpus to merged model.

The fast computation is compared with the model's own in double precision throughout, so that any difference beyond the
order of sums is an error.
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.artifacts import Adapter
from finetune.errors import UnplannedModelError
from finetune.evaluate import EvalRequest, evaluate
from finetune.merge import MergeRequest, distance, held_out, merge_adapter
from finetune.models.chat_template import render_prompt
from finetune.models.find import find_base
from finetune.models.load import greedy_settings, load, load_adapter, load_base
from finetune.plan.shapes import FAMILIES as PLANNED
from finetune.plan.shapes import read_shape
from finetune.recipe import AdapterRecipe
from finetune.records import Message
from finetune.scoring import labels
from finetune.scoring.generation import generate
from finetune.scoring.labels import label_logprobs, score_labels
from finetune.train import TrainRequest, train
from finetune.train.arguments import lora_config
from finetune.train.batches.collate import NumberedRows, PaddedBatches
from finetune.train.batches.rows import TokenRows
from finetune.train.fast.fast_path import FastPath
from finetune.train.fast.loss import summed_loss

from ..conftest import chat
from ..scoring.test_labels import CHOICES, examples, plain_logprob
from .families import FAMILIES, Family
from .family_models import write_family_model
from .test_packing import prompts, rows_of

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(scope="session")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a family's tiny random model, made once."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    @functools.cache
    def make(family: Family) -> Path:
        return write_family_model(family, tokenizer, tmp_path_factory.mktemp("families") / family.kind)

    return make


class DoublePrecision(TorchFunctionMode):
    """Computes in float64 where a model asks for float32, as norms and softmax do."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def double(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        func = Tensor.double if func is Tensor.float else func
        return func(*map(double, args), **{name: double(value) for name, value in (kwargs or {}).items()})


def own_loss(model: Any, rows: TokenRows) -> Tensor:
    """The summed loss that the model's own forward pass returns for its rows, one by one."""
    losses = []
    for number in range(len(rows)):
        row = rows[number]
        ids = torch.from_numpy(row.tokens.astype("int64"))
        labels = torch.where(torch.from_numpy(row.supervised.copy()), ids, -100)
        loss = model(input_ids=ids[None], labels=labels[None], use_cache=False).loss
        losses.append(loss * int(row.supervised[1:].sum()))
    return torch.stack(losses).sum()


def give_lora_an_effect(model: nn.Module) -> None:
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter, dtype=torch.float64) * 0.1


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.grad for name, one in model.named_parameters() if "lora_" in name and one.grad is not None}


@every_family
def test_fast_loss_and_gradients_equal_the_models_own(family: Family, models: Any) -> None:
    rows = prompts()
    with DoublePrecision():
        plain: Any = load_base(models(family), AdapterRecipe(quantization="none")).double()
        fast = copy.deepcopy(plain)
        padded = PaddedBatches(NumberedRows(rows, rows_of([[1, 2, 3]])), 0)
        fast_path = FastPath(fast, padded, replace_blocks=True)
        config = lora_config(AdapterRecipe(lora_r=4), fast)
        adapted: Any = get_peft_model(fast, config)
        batches = fast_path.choose_batches(adapted.get_base_model(), packing=True, share=True)
        assert isinstance(batches, PaddedBatches) == (family.batches == "padded")
        assert getattr(batches, "share", False) == ("shared" in family.batches)
        own = LoraConfig(**{name: value for name, value in config.to_dict().items() if name in OWN})
        wrapped: Any = get_peft_model(plain, own)
        for model in (adapted, wrapped):
            give_lora_an_effect(model.eval())  # without the dropout of the base model
        expected = own_loss(wrapped, rows)
        expected.backward()
        actual = summed_loss(adapted.get_base_model(), batches([{"number": number} for number in range(len(rows))]))
        actual.backward()
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)
    assert gradients(adapted).keys() == gradients(wrapped).keys()
    for name, gradient in gradients(wrapped).items():
        size = float(gradient.norm())
        assert size > 0
        assert float((gradients(adapted)[name] - gradient).norm()) <= 1e-9 * size, name


OWN = ("task_type", "r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "bias")


@every_family
def test_family_goes_from_corpus_to_merged_model(
    family: Family, models: Any, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = AdapterRecipe(model=str(models(family)), max_steps=3, logging_steps=1, learning_rate=1e-2, lora_r=4)
    result = train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe))
    assert math.isfinite(result.train_loss)
    assert (result.computed_tokens < result.tokens) == ("shared" in family.batches)
    assert (result.computed_tokens > result.tokens) == (family.batches == "padded")
    adapter = Adapter.open(result.adapter)
    loaded = load_adapter(adapter)
    assert all(bool(one.any()) for name, one in loaded.model.named_parameters() if "lora_B" in name)
    for example, row in zip(examples(), label_logprobs(loaded, examples(), batch_size=2), strict=True):
        assert row == pytest.approx([plain_logprob(loaded, example, choice) for choice in CHOICES], abs=1e-3)
    short: dict[str, Any] = {"limit": 2, "max_new_tokens": 4, "forgetting": False}
    assert evaluate(EvalRequest(result.adapter, tiny_corpus, tmp_path / "eval", **short)).tasks
    monkeypatch.setattr(distance, "GREEDY_TOKENS", 2)
    assert merge_adapter(MergeRequest(result.adapter, tmp_path / "model", tiny_corpus, rows=4)).verified


@every_family
def test_labels_in_one_pass_equal_single_answers(family: Family, models: Any) -> None:
    loaded = load(find_base(str(models(family))), AdapterRecipe(quantization="none"))
    system = Message("system", "Is this sentence about a company good news for those who own its shares?")
    rows = [replace(row, messages=(system, *row.messages)) for row in examples()]
    expected = [[plain_logprob(loaded, row, choice) for choice in CHOICES] for row in rows]
    prior = [
        plain_logprob(loaded, replace(rows[0], messages=(system, *chat("N/A", "-"))), choice) for choice in CHOICES
    ]
    for row, logprobs in zip(score_labels(loaded, rows, batch_size=2), expected, strict=True):
        assert row.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert row.priors == pytest.approx(prior, abs=1e-4)
    in_one_pass = any(labels._verdicts.get(loaded.model, {}).values())
    assert in_one_pass == (family.batches != "padded" or family.kind == "gpt2")


@every_family
def test_generated_answers_are_those_of_transformers(family: Family, models: Any) -> None:
    loaded = load(find_base(str(models(family))), AdapterRecipe(quantization="none"))
    system = Message("system", "Is this sentence about a company good news for those who own its shares?")
    rows = [replace(row, messages=(system, *row.messages), choices=()) for row in examples()]
    rows.append(replace(rows[0], choices=("yes",)))  # leaves the batch before the others
    expected = []
    for row in rows[:-1]:
        prompt = render_prompt(loaded.tokenizer, row.prompt)
        ids = torch.tensor([prompt])
        output = loaded.model.generate(ids, generation_config=greedy_settings(loaded.tokenizer, 6))
        expected.append(str(loaded.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)).strip())
    assert generate(loaded, rows, batch_size=4, max_new_tokens=6) == [*expected, "yes"]


@every_family
def test_plan_counts_the_parameters_or_says_that_it_cannot(family: Family, models: Any) -> None:
    folder = models(family)
    if family.kind in PLANNED:
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert read_shape(folder).parameters == sum(one.numel() for one in model.parameters())
    else:
        with pytest.raises(UnplannedModelError, match=f"'{family.kind}' models"):
            read_shape(folder)


@pytest.mark.parametrize("kind", ["gpt2", "phi"])  # with transposed weights, and with biases
@pytest.mark.parametrize(
    "changes",
    [
        {"init_lora_weights": "pissa", "quantization": "none"},
        {"init_lora_weights": "loftq"},
        {"quantization": "int8", "use_dora": True},
    ],
)
def test_methods_merge_into_other_kinds_of_layers(
    kind: str, changes: dict[str, Any], models: Any, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "ROWS", 64)  # by which `auto` chooses between two kinds of weights
    (family,) = (family for family in FAMILIES if family.kind == kind)
    recipe = AdapterRecipe(
        model=str(models(family)), max_steps=3, learning_rate=1e-2, lora_r=4, eval_steps=0, **changes
    )
    result = train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe))
    merged = merge_adapter(MergeRequest(result.adapter, tmp_path / "model", tiny_corpus))
    assert merged.drift.max_abs_logit_diff < 1e-4
    if "use_dora" not in changes:
        assert merged.drift.max_abs_logit_diff < 1e-4
