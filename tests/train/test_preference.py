"""Preference tuning: the loss is TRL's, packed or padded, in one pass or several, and a killed run ends like any other."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from finetune.artifacts import Corpus
from finetune.errors import InputError, StoppedError
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.train import Step, TrainRequest, plan_training, train
from finetune.train.batches.collate import NumberedRows, PackedBatches
from finetune.train.batches.rows import TokenRows, render_rows
from finetune.train.fast.fast_path import NO_ROWS
from finetune.train.fast.loss import row_losses
from finetune.train.fit_memory import row_sizes
from finetune.train.objectives import preference
from finetune.train.objectives.preference import Preference

from ..command import Command
from ..conftest import chat
from ..corpora import write_corpus
from .kills import RECIPE, checkpoints, outcome, run_with_kills, training
from .processes import assert_same, fork_ranks

BETA = 0.3


def pair(number: int) -> Example:
    """A pair of answers of different lengths; neighbours have the same question."""
    question = f"Did the bank number {number // 2} raise its outlook?"
    chosen, rejected = f"Yes, it rose by {number}.", "No idea" + " at all" * (number % 3)
    return Example(str(number), chat(question, chosen), "preference", rejected=chat(question, rejected))


@pytest.fixture
def pairs(tiny_model: Path) -> TokenRows:
    return render_rows(AutoTokenizer.from_pretrained(tiny_model), map(pair, range(5)), 512)


def trained_adapter(model: Any) -> Any:
    """The model with LoRA matrices that have an effect."""
    torch.manual_seed(3)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return adapted


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def ours(folder: Path, pairs: TokenRows, passes: Sequence[Sequence[int]], **changes: Any) -> tuple[float, Any, Any]:
    """Mean loss, figures and gradients of all pairs, in these forward passes; the reference is the base model."""
    base = AutoModelForCausalLM.from_pretrained(folder)
    recipe = AdapterRecipe.model_validate({"method": "dpo", "dpo_beta": BETA} | changes)
    objective = Preference(base, NumberedRows(pairs, NO_ROWS), recipe, 0)
    adapted = trained_adapter(base)
    trained = {name: each.data for name, each in adapted.named_parameters() if "lora_B" in name}
    for name, each in adapted.named_parameters():
        if name in trained:
            each.data = torch.zeros_like(each)
    objective.begin(adapted)
    objective.remember_start(adapted)
    for name, each in adapted.named_parameters():
        if name in trained:
            each.data = trained[name]
    total = 0.0
    for rows in passes:
        batch = objective.collate([{"number": row} for row in rows])
        counts = batch["counts"]
        assert ("layout" in batch, counts.computed_tokens < counts.tokens) == (recipe.packing, recipe.packing)
        loss = objective.loss(adapted, batch) / len(pairs)
        loss.backward()
        total += loss.item()
    return total, objective.take_figures().means, gradients(adapted)


def trls(folder: Path, tmp_path: Path) -> tuple[float, Any, Any]:
    """The same from DPOTrainer, all pairs in one batch."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [
        {
            "prompt": [{"role": "user", "content": each.messages[0].content}],
            "chosen": [{"role": "assistant", "content": each.answer}],
            "rejected": [{"role": "assistant", "content": each.rejected[-1].content}],
        }
        for each in map(pair, range(5))
    ]
    arguments = DPOConfig(
        str(tmp_path),
        beta=BETA,
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to="none",
        activation_checkpointing=False,
    )
    base = AutoModelForCausalLM.from_pretrained(folder)
    peft_config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = DPOTrainer(
        base, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=peft_config
    )
    model: Any = trainer.model
    weights = dict(trained_adapter(AutoModelForCausalLM.from_pretrained(folder)).named_parameters())
    for name, parameter in model.named_parameters():
        parameter.data.copy_(weights[name].data)
    dataset: Any = trainer.train_dataset
    items = [dataset[number] for number in range(5)]
    for item in items:  # the template ends a turn with a line break, which no row of slmtune has
        item["chosen_ids"], item["rejected_ids"] = item["chosen_ids"][:-1], item["rejected_ids"][:-1]
    loss = trainer.compute_loss(model, trainer.data_collator(items))
    loss.backward()
    measured = {name: values[0] for name, values in trainer._metrics["train"].items() if name.startswith("rewards/")}
    names = {
        "rewards/accuracies": "preference_accuracy",
        "rewards/margins": "reward_margin",
        "rewards/chosen": "chosen_reward",
        "rewards/rejected": "rejected_reward",
    }
    return loss.item(), {ours: measured[theirs] for theirs, ours in names.items()}, gradients(model)


@pytest.mark.parametrize("passes", [[range(5)], [[0], [1, 2], [3, 4]]])
@pytest.mark.parametrize("packing", [True, False])
def test_loss_rewards_and_gradients_are_those_of_trl(
    packing: bool, passes: Sequence[Sequence[int]], pairs: TokenRows, tiny_model: Path, tmp_path: Path
) -> None:
    loss, figures, ours_ = ours(tiny_model, pairs, passes, packing=packing)
    expected, rewards, theirs = trls(tiny_model, tmp_path)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert figures == pytest.approx(rewards, abs=1e-5)
    assert 0 < rewards["preference_accuracy"] < 1
    assert ours_.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours_[name], gradient, rtol=1e-5, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in theirs.values()) > 1e-2


def test_planned_batch_is_the_largest_one(tiny_model: Path) -> None:
    """Half of the pairs: each question once."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    pairs = render_rows(tokenizer, map(pair, range(0, 12, 2)), 512)
    for share in (True, False):
        largest = row_sizes(pairs, is_shared=share).largest(2, 512)
        batches = PackedBatches(NumberedRows(pairs, NO_ROWS), share)
        sizes = [
            batches([{"number": one}, {"number": other}])["counts"].computed_tokens
            for one, other in combinations(range(len(pairs)), 2)
        ]
        assert max(sizes) == largest.tokens if share else max(sizes) <= largest.tokens


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 42 pairs: the chosen answer is polite, the rejected one is not."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        {
            "prompt": f"What of bank {n}?",
            "chosen": f"Dear customer, bank {n} held.",
            "rejected": f"Bank {n}. Held. So what?",
        }
        for n in range(42)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    request = PrepareRequest(folder / "corpus", sources=(str(folder / "pairs.jsonl"),), split_ratio="0.7/0.15/0.15")
    prepare(request)
    return folder / "corpus"


def test_adapter_learns_what_is_preferred(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), method="dpo", learning_rate=1e-3, num_train_epochs=4, logging_steps=1)
    steps: list[Step] = []
    result = train(TrainRequest(corpus, tmp_path / "adapter", recipe), steps.append)
    journal = [json.loads(line) for line in (tmp_path / "adapter" / "training.jsonl").read_text("utf-8").splitlines()]
    first, last, held_out = journal[0], journal[-2], journal[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)  # the model is its own reference
    assert (first["reward_margin"], first["chosen_reward"]) == (0, 0)
    assert last["loss"] < 0.6
    assert last["reward_margin"] == pytest.approx(last["chosen_reward"] - last["rejected_reward"])
    assert (last["preference_accuracy"], held_out["eval_preference_accuracy"]) == (1, 1)
    assert result.eval_figures["preference_accuracy"] == 1
    assert result.eval_loss == held_out["eval_loss"]
    assert steps[-1].figures["preference_accuracy"] == 1
    assert result.pairs == 4 * Corpus.open(corpus).counts["train"]
    assert result.computed_tokens < result.tokens


def test_share_of_pairs_that_are_ranked_right_may_decide_which_step_is_best(
    corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    changes = {"metric_for_best_model": "preference_accuracy", "eval_steps": 1, "patience": 2, "logging_steps": 1}
    recipe = AdapterRecipe(model=str(tiny_model), method="dpo", learning_rate=1e-3, num_train_epochs=6, **changes)
    result = train(TrainRequest(corpus, tmp_path / "adapter", recipe))
    lines = [json.loads(line) for line in (tmp_path / "adapter" / "training.jsonl").read_text("utf-8").splitlines()]
    measured = {line["step"]: line for line in lines if "eval_loss" in line}
    best = max(measured, key=lambda step: (measured[step]["eval_preference_accuracy"], -measured[step]["eval_loss"]))
    assert (result.metric, result.adapter_step) == ("preference_accuracy", best)
    assert result.eval_figures["preference_accuracy"] == measured[best]["eval_preference_accuracy"]
    assert result.stopped_early == (result.steps == best + 2 < 24)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora_dropout": 0.0}])
def test_killed_run_resumes_to_the_same_bytes(
    changes: dict[str, Any], corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    arguments = training(tiny_model, corpus, method="dpo", learning_rate=1e-3, max_steps=14, **changes)
    whole = tmp_path / "whole"
    whole.mkdir()
    run = Command(*arguments, cwd=whole)
    assert run.wait() == 0, run.stderr
    (tmp_path / "killed").mkdir()
    ends = run_with_kills(
        arguments, tmp_path / "killed", at_random=1, while_writing=2, seed=1, seconds=run.result["seconds"]
    )
    assert all(end == outcome(whole) for end in ends)


def test_reference_of_a_resumed_run_is_that_of_its_first_steps(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    """In smaller passes, which a resumed run may have, the log-probabilities of the reference would be rounded otherwise."""
    recipe = AdapterRecipe.model_validate(RECIPE | {"model": str(tiny_model), "method": "dpo", "max_steps": 8})
    train(TrainRequest(corpus, tmp_path / "whole" / "adapter", recipe))
    request = TrainRequest(corpus, tmp_path / "stopped" / "adapter", recipe)
    with pytest.raises(StoppedError):
        train(request, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == 3 else None)
    reference = load_file(checkpoints(tmp_path / "stopped")[-1] / "objective.safetensors")["reference"]
    rows = Corpus.open(corpus).counts
    assert reference.shape == (rows["train"] + rows["validation"], 2)
    assert 0 < int(reference.isnan().all(1).sum()) < len(reference)
    train(replace(request, resume=True))
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_step_is_repeated_in_smaller_passes_with_the_same_result(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = AdapterRecipe.model_validate(RECIPE | {"model": str(tiny_model), "method": "dpo", "max_steps": 4})
    smaller = recipe.divide(2)
    train(TrainRequest(corpus, tmp_path / "small" / "adapter", smaller))

    def fill(causal: Any, batch: dict[str, Any]) -> torch.Tensor:
        if len(batch["rows"]) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError
        return row_losses(causal, batch)

    monkeypatch.setattr(preference, "row_losses", fill)
    train(TrainRequest(corpus, tmp_path / "large" / "adapter", recipe))
    assert "going on with 2, in 6 passes per optimizer step" in caplog.text
    large, small = outcome(tmp_path / "large"), outcome(tmp_path / "small")
    assert large["result"]["pairs"] == small["result"]["pairs"]
    for ours_, theirs in zip(large["journal"], small["journal"], strict=True):
        assert ours_ == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_sources_of_pairs_are_mixed(tiny_model: Path, tmp_path: Path) -> None:
    rows = [replace(pair(number), source="first" if number < 6 else "second") for number in range(12)]
    corpus = write_corpus(tmp_path / "corpus", {"train": rows}).path
    settings = {
        "model": str(tiny_model),
        "method": "dpo",
        "mix": {"first": 0.75, "second": 0.25},
        "num_train_epochs": 1,
    }
    request = TrainRequest(corpus, tmp_path / "adapter", AdapterRecipe.model_validate(settings))
    planned, result = plan_training(request), train(request)
    assert result.pairs == planned.rows == sum(planned.mixture.values())
    assert planned.mixture["first"] == 3 * planned.mixture["second"]
    assert result.tokens == planned.tokens_per_epoch
    with pytest.raises(InputError, match="--replay adds general questions and answers"):
        plan_training(
            replace(
                request, output_dir=tmp_path / "other", recipe=AdapterRecipe.model_validate(settings | {"replay": 0.1})
            )
        )


def test_checkpointed_activations_change_nothing(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The backward pass computes a block again with the weights of the step, not with those of the reference."""
    journals = []
    for name, changes in (("kept", {}), ("computed", {"gradient_checkpointing": True})):
        settings = {"model": str(tiny_model), "method": "dpo", "max_steps": 4, "logging_steps": 1, "eval_steps": 0}
        recipe = AdapterRecipe.model_validate(settings | {"learning_rate": 1e-2} | changes)
        train(TrainRequest(corpus, tmp_path / name / "adapter", recipe))
        journals.append(outcome(tmp_path / name)["journal"])
    kept, computed = journals
    assert kept[-1]["loss"] < 0.6
    for ours_, theirs in zip(kept, computed, strict=True):
        assert ours_ == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_reference_is_the_adapter_to_start_from(
    corpus: Path, tiny_adapter: Path, tiny_model: Path, tmp_path: Path
) -> None:
    settings = {"init_adapter": str(tiny_adapter), "method": "dpo", "max_steps": 2, "logging_steps": 1, "eval_steps": 0}
    recipe = AdapterRecipe(model=str(tiny_model), learning_rate=1e-2, warmup_ratio=0, **settings)
    result = train(TrainRequest(corpus, tmp_path / "adapter", recipe))
    first, *_, last = map(json.loads, (result.adapter / "training.jsonl").read_text("utf-8").splitlines())
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert last["reward_margin"] > 0


def refusal(request: TrainRequest) -> str:
    """The error with which both the run and its plan are refused."""
    with pytest.raises(InputError) as planned:
        plan_training(request)
    with pytest.raises(InputError) as refused:
        train(request)
    assert str(refused.value) == str(planned.value)
    assert not request.output_dir.exists()
    return str(refused.value)


def test_other_rows_are_refused(corpus: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    dpo = AdapterRecipe(model=str(tiny_model), method="dpo")
    error = refusal(TrainRequest(tiny_corpus, tmp_path / "adapter", dpo))
    assert "other rows (by task: classification 48, qa 12). Prepare a corpus of pairs only" in error
    error = refusal(TrainRequest(corpus, tmp_path / "adapter", AdapterRecipe(model=str(tiny_model))))
    assert "Add --method dpo to learn the preference" in error


@pytest.mark.parametrize(
    ("label", "problem"), [("undesirable", "one answer, rated undesirable"), (None, "no rejected answer")]
)
def test_row_with_one_answer_is_refused(label: str | None, problem: str, tiny_model: Path, tmp_path: Path) -> None:
    single = Example("alone", chat("Hello?", "Go away."), "preference", label=label)
    corpus = write_corpus(tmp_path / "corpus", {"train": [pair(0), single]})
    error = refusal(TrainRequest(corpus.path, tmp_path / "adapter", AdapterRecipe(model=str(tiny_model), method="dpo")))
    assert error.startswith(f"Row alone has {problem}, but --method dpo")
    assert "KTO" in error


def test_two_processes_learn_like_one(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    """The second epoch needs the reference of pairs that the other process has computed, or computes it again."""
    for count in (1, 2):
        (tmp_path / str(count)).mkdir()
        changes = {"method": "dpo", "max_steps": 6, "lora_dropout": 0, "logging_steps": 1}
        arguments = [*training(tiny_model, corpus, **changes), "--num-processes", count]
        run = Command(*arguments, cwd=tmp_path / str(count), before=fork_ranks)
        assert run.wait() == 0, run.stderr
    assert_same(tmp_path / "2", tmp_path / "1")


def test_answers_cut_by_the_maximum_length(tiny_model: Path, tmp_path: Path) -> None:
    start = "It rose " * 20
    question = "And now?"
    alike = Example("alike", chat(question, start + "a lot."), "preference", rejected=chat(question, start + "a bit."))
    corpus = write_corpus(tmp_path / "corpus", {"train": [pair(0), alike]}).path
    length = {"model": str(tiny_model), "method": "dpo", "max_truncated": 1}
    recipe = AdapterRecipe.model_validate(length | {"max_length": 60})
    error = refusal(TrainRequest(corpus, tmp_path / "adapter", recipe))
    assert error.startswith("Both answers of row alike are the same within 60 tokens")
    recipe = AdapterRecipe.model_validate(length | {"max_length": 10})
    assert "its prompt alone is longer" in refusal(TrainRequest(corpus, tmp_path / "adapter", recipe))
    alone = write_corpus(tmp_path / "one", {"train": [pair(0)]}).path
    recipe = AdapterRecipe.model_validate(length | {"max_length": 40, "max_truncated": 0})
    with pytest.raises(InputError, match="1 of 1 rows are longer than --max-length 40"):
        train(TrainRequest(alone, tmp_path / "adapter", recipe))
