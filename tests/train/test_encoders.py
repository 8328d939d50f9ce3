"""Encoders train through the same loop as causal models: exactly, from a corpus to an adapter that PEFT loads."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from finetune.artifacts import Adapter, Corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.encoder_inputs import encode
from finetune.models.heads import Head
from finetune.models.load import load_adapter, load_base
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Message
from finetune.scoring.encoders import predict
from finetune.scoring.tasks import HEAD_METRICS
from finetune.train import TrainRequest, plan_training, train
from finetune.train.arguments import lora_config
from finetune.train.batches.collate import NumberedRows
from finetune.train.batches.labelled import encode_rows
from finetune.train.fast.lora_linear import FusedLinear
from finetune.train.fit import make_objective
from finetune.train.objectives.classification import balanced_weights
from finetune.train.validation import EncoderValidation

from ..corpora import write_corpus
from ..encoders import ENCODERS, encoder_tokenizer, write_encoder
from .kills import outcome, run_with_kills, training
from .test_families import DoublePrecision, give_lora_an_effect

SIGNS = {"bearish": "fell", "neutral": "held", "bullish": "rose"}
LABELS = tuple(SIGNS)
HEADS = {
    "classification": Head("classification", LABELS),
    "multi-label": Head("multi-label", LABELS),
    "extraction": Head("extraction"),
}


def row(number: int, kind: str, split: str = "train") -> Example:
    """A row of the kind of a head; rows have different lengths."""
    label = LABELS[number % 3]
    text = f"shares of bank {number} " + "and more " * (number % 5) + f"{SIGNS[label]} today"
    answer, more = label, dict[str, Any]()
    if kind == "classification":
        more = {"label": label, "choices": LABELS}
    elif kind == "multi-label":
        labels = LABELS[: number % 4]
        text = " ".join(["shares", *(SIGNS[one] for one in labels), str(number)])
        answer, more = ", ".join(labels), {"labels": labels, "choices": LABELS}
    else:
        answer, more = SIGNS[label], {"context": text}
        text = f"{text}\n\nwhat did they do?"
    messages = (Message("system", "Instruction."), Message("user", text), Message("assistant", answer))
    task: Any = "qa" if kind == "extraction" else "classification"
    return Example(f"{split}:{number}", messages, task, **more)


def rows_of(kind: str, count: int = 30) -> list[Example]:
    return [row(number, kind) for number in range(count)]


def corpus_of(folder: Path, train_rows: Sequence[Example], held_out: Sequence[Example] = ()) -> Path:
    facts: dict[str, Any] = {"sources": [], "license": "cc0-1.0", "by_task": {}, "domain": None}
    write_corpus(folder, {"train": train_rows, "validation": held_out}, facts=facts)
    return folder


def recipe(model: Path, **changes: object) -> AdapterRecipe:
    return AdapterRecipe.model_validate(
        {"model": str(model), "max_steps": 3, "logging_steps": 1, "learning_rate": 1e-2, "lora_r": 4} | changes
    )


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a kind's tiny random encoder, made once."""

    @functools.cache
    def make(kind: str, **more: Any) -> Path:
        return write_encoder(tmp_path_factory.mktemp("encoders") / kind, kind, **more)

    return make


CALM = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # of BERT: without dropout


@pytest.mark.parametrize("head", ["classification", "extraction"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_adapter_of_an_encoder_is_plain_peft_with_named_labels(
    kind: str, head: str, encoders: Any, tmp_path: Path
) -> None:
    """Half of the combinations in 4 bits: one of each kind and two of each head."""
    in_4bit = (ENCODERS.index(kind) % 2 == 0) == (head == "classification")
    corpus = corpus_of(tmp_path / "corpus", rows_of(head), rows_of(head, 4))
    settings = recipe(encoders(kind), quantization="nf4" if in_4bit else "none")
    result = train(TrainRequest(corpus, tmp_path / "adapter", settings))
    assert math.isfinite(result.train_loss)
    assert result.eval_loss is not None
    assert (result.computed_tokens == result.tokens) == (kind != "mobilebert")
    adapter = Adapter.open(result.adapter)
    assert Head.of_manifest(adapter.manifest) == HEADS[head]
    assert adapter.config["task"] == head
    loaded = load_adapter(adapter)
    auto: Any = AutoModelForQuestionAnswering if head == "extraction" else AutoModelForSequenceClassification
    plain: Any = auto.from_pretrained(encoders(kind), config=AutoConfig.from_pretrained(result.adapter))
    if head == "classification":
        assert plain.config.id2label == dict(enumerate(LABELS))
    wrapped = PeftModel.from_pretrained(plain, str(result.adapter)).eval()
    if not in_4bit:
        batch = AutoTokenizer.from_pretrained(result.adapter)("what?", "shares rose today", return_tensors="pt")
        torch.testing.assert_close(wrapped(**batch)[0], loaded.model.get_base_model()(**batch)[0])
    assert str(tmp_path) not in (result.adapter / "config.json").read_text("utf-8")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("kind", [*ENCODERS, "roberta"])
def test_loss_and_gradients_equal_those_of_single_rows(kind: str, head: str, encoders: Any) -> None:
    tokenizer = encoder_tokenizer()
    with DoublePrecision():
        plain: Any = load_base(encoders(kind), AdapterRecipe(quantization="none"), head=HEADS[head]).double()
        fast = copy.deepcopy(plain)
        rows = encode_rows(tokenizer, rows_of(head, 12), HEADS[head], 64)
        objective = make_objective(fast, NumberedRows(rows, rows), recipe(encoders(kind)), HEADS[head], 0)
        config = lora_config(recipe(encoders(kind)), fast, objective.task_type)
        adapted: Any = get_peft_model(fast, config)
        own = LoraConfig(**{name: value for name, value in config.to_dict().items() if name in OWN})
        wrapped: Any = get_peft_model(plain, own)
        objective.begin(adapted)
        assert any(isinstance(module, FusedLinear) for module in adapted.modules())
        for model in (adapted, wrapped):
            give_lora_an_effect(model.eval())
        batch = objective.collate([{"number": number} for number in range(12)])
        assert ("layout" in batch["inputs"]) == (kind != "mobilebert")
        loss = objective.loss(adapted, batch)
        loss.backward()
        expected = torch.stack([own_loss(wrapped, one, HEADS[head]) for one in rows_of(head, 12)]).sum()
        expected.backward()
    assert batch["counts"].supervised_tokens == 12
    torch.testing.assert_close(loss, expected, rtol=1e-8, atol=0)
    ours, theirs = gradients(adapted), gradients(wrapped)
    assert ours.keys() == theirs.keys()
    assert any("classifier" in name or "qa_outputs" in name for name in ours)
    for name, gradient in theirs.items():
        assert float((ours[name] - gradient).norm()) <= 1e-7 * float(gradient.norm()) + 1e-12, name


OWN = ("task_type", "r", "lora_alpha", "target_modules", "exclude_modules", "modules_to_save")


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def own_loss(model: Any, example: Example, head: Head) -> Any:
    """The loss of one row, alone in a batch, from the logits of PEFT's own model."""
    row = encode(encoder_tokenizer(), example, 64)
    inputs = {"input_ids": torch.tensor([row.ids])}
    if model.config.model_type in ("bert", "mobilebert"):
        inputs["token_type_ids"] = torch.tensor([row.token_types])
    output = model.get_base_model()(**inputs)
    if head.kind == "classification":
        return -output.logits.log_softmax(-1)[0, LABELS.index(str(example.label))]
    if head.kind == "multi-label":
        signs = torch.tensor([1.0 if one in (example.labels or ()) else -1.0 for one in LABELS])
        return -nn.functional.logsigmoid(signs * output.logits[0]).mean()
    (start,), (end,) = output.start_logits, output.end_logits
    context = [number for number, place in enumerate(row.context) if place]
    places = [place for place in row.context if place]
    opens = str(example.context).index(example.answer)
    first = [place[0] for place in places].index(opens)
    last = [place[1] for place in places].index(opens + len(example.answer))
    return -(start[context].log_softmax(-1)[first] + end[context].log_softmax(-1)[last]) / 2


def test_mobilebert_is_padded_because_its_tokens_see_their_neighbours(
    encoders: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of("classification"))
    train(TrainRequest(corpus, tmp_path / "adapter", recipe(encoders("mobilebert"), max_steps=1)))
    (line,) = [one for one in caplog.messages if "Batches are padded" in one]
    assert "packed, this model's hidden states differ" in line


def test_passes_of_padded_rows_have_rows_of_similar_length(encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of("classification"))
    batch = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 6, "max_steps": 4}
    computed = {}
    for name, size in (("few", 2), ("many", 12)):
        batch |= {"per_device_train_batch_size": size, "gradient_accumulation_steps": 12 // size}
        settings = recipe(encoders("bert", **CALM), packing=False, **batch)
        result = train(TrainRequest(corpus, tmp_path / name, settings))
        computed[name] = result.computed_tokens / result.tokens
    assert computed["few"] < 1.1 < computed["many"]


def test_long_rows_of_an_encoder_that_counts_from_its_padding_fit(encoders: Any, tmp_path: Path) -> None:
    long = Example("long", (Message("user", "a " * 300), Message("assistant", "neutral")), "classification")
    long = replace(long, label="neutral", choices=LABELS)
    corpus = corpus_of(tmp_path / "corpus", [*rows_of("classification", 5), long])
    settings = recipe(encoders("roberta"), max_steps=1, max_truncated=1)
    assert train(TrainRequest(corpus, tmp_path / "adapter", settings)).truncated == 1


@pytest.mark.parametrize("head", ["classification", "extraction"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_train_in_bfloat16(
    kind: str, head: str, encoders: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of(head))
    settings = recipe(encoders(kind), compute_dtype="bfloat16", max_steps=2)
    assert math.isfinite(train(TrainRequest(corpus, tmp_path / "adapter", settings)).train_loss)
    assert "fused LoRA layers" not in caplog.text
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}


@pytest.mark.parametrize("head", HEADS)
def test_loss_falls_and_runs_repeat_themselves(head: str, encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of(head), rows_of(head, 6))
    settings = recipe(encoders("bert"), max_steps=40)
    for name in ("one", "two"):
        train(TrainRequest(corpus, tmp_path / name / "adapter", settings))
    one, two = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    assert one == two
    losses = [line["loss"] for line in one["journal"] if "loss" in line]
    assert sum(losses[-5:]) < sum(losses[:5]) * 0.75
    other = recipe(encoders("bert"), max_steps=1, seed=7)
    train(TrainRequest(corpus, tmp_path / "other" / "adapter", other))
    assert outcome(tmp_path / "other")["journal"][0]["loss"] != one["journal"][0]["loss"]


@pytest.mark.parametrize("packing", [True, False])
def test_division_into_passes_leaves_the_result(packing: bool, encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of("classification"))
    for name, size, passes in (("one", 8, 1), ("two", 2, 4)):
        batch = {"per_device_train_batch_size": size, "gradient_accumulation_steps": passes, "packing": packing}
        settings = recipe(encoders("bert", **CALM), **batch, max_steps=6, class_weights="balanced")
        train(TrainRequest(corpus, tmp_path / name / "adapter", settings))
    one, two = ([line["loss"] for line in outcome(tmp_path / name)["journal"]] for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), [*((kind, "classification") for kind in ENCODERS), ("bert", "extraction")])
def test_killed_run_of_an_encoder_resumes_to_the_same_bytes(
    kind: str, head: str, encoders: Any, tmp_path: Path
) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of(head), rows_of(head, 6))
    arguments = training(encoders(kind), corpus, max_steps=12)
    (tmp_path / "plain").mkdir()
    (tmp_path / "killed").mkdir()
    (expected,) = run_with_kills(arguments, tmp_path / "plain", at_random=0, while_writing=0, seed=0, seconds=0)
    outcomes = run_with_kills(arguments, tmp_path / "killed", at_random=0, while_writing=2, seed=1, seconds=0)
    assert all(one == expected for one in outcomes)


def test_fingerprint_of_rows_covers_their_targets() -> None:
    rows = rows_of("classification", 6)
    other = [*rows[:5], replace(rows[5], label=LABELS[0])]
    assert rows[5].label != LABELS[0]
    one, two = (encode_rows(encoder_tokenizer(), each, HEADS["classification"], 64) for each in (rows, other))
    assert one.fingerprint != two.fingerprint


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    classes = [0, 0, 0, 1, 1, 2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    targets = np.array(classes)[:, None]
    assert balanced_weights(targets, 3).tolist() == pytest.approx(expected.tolist())
    several = np.array([[1, 0], [1, 1], [0, 0], [1, 0]])
    assert balanced_weights(several, 2).tolist() == pytest.approx([1 / 3, 3.0])


def refuse(corpus: Path, settings: AdapterRecipe, out: Path, *parts: str) -> None:
    with pytest.raises(InputError) as caught:
        plan_training(TrainRequest(corpus, out / "adapter", settings))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


CHAT = Example("chat:1", (Message("user", "hello bank"), Message("assistant", "hello")), "chat")


@pytest.mark.parametrize("task", ["auto", "classification", "extraction"])
def test_corpus_without_labels_and_contexts_is_refused(task: str, encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [CHAT])
    expected = {"auto": "neither labels nor", "classification": "no labels", "extraction": "no contexts"}[task]
    refuse(corpus, recipe(encoders("bert"), task=task), tmp_path, expected, "causal language model")


def test_rows_without_label_are_counted_and_named(encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [*rows_of("classification", 4), CHAT])
    refuse(corpus, recipe(encoders("bert")), tmp_path, "1 of 5 rows in the train split", "have no label: chat:1")


def test_other_labels_in_another_split_are_refused(encoders: Any, tmp_path: Path) -> None:
    other = Example("other:1", CHAT.messages, "classification", label="good", choices=("bad", "good"))
    corpus = corpus_of(tmp_path / "corpus", rows_of("classification", 4), [other])
    refuse(corpus, recipe(encoders("bert")), tmp_path, "1 of 1 rows in the validation split", "another set of labels")


def test_rows_with_one_and_with_several_labels_are_refused(encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [*rows_of("classification", 4), row(9, "multi-label")])
    refuse(corpus, recipe(encoders("bert")), tmp_path, "1 of 5 rows", "several labels", "train:9")


def test_answers_outside_their_context_are_counted_and_named(encoders: Any, tmp_path: Path) -> None:
    messages = (Message("user", "it fell\n\nwhat?"), Message("assistant", "it rose"))
    wrong = [Example(f"wrong:{number}", messages, "qa", context="it fell") for number in range(5)]
    corpus = corpus_of(tmp_path / "corpus", [*rows_of("extraction", 4), *wrong])
    refuse(corpus, recipe(encoders("bert")), tmp_path, "5 of 9 rows", "wrong:0, wrong:1, wrong:2 …", "not part of")


def test_answer_beyond_the_maximum_length_is_refused(encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [row(4, "extraction")])
    refuse(corpus, recipe(encoders("bert"), max_length=18), tmp_path, "train:4", "within 18 tokens", "--max-length")


def test_truncated_texts_are_counted_and_refused(encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of("classification"))
    refused = TrainRequest(corpus, tmp_path / "adapter", recipe(encoders("bert"), max_length=10))
    with pytest.raises(InputError, match="would be truncated"):
        train(refused)


def test_model_of_the_wrong_kind_is_refused(encoders: Any, tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    causal = recipe(tiny_model, task="classification")
    refuse(tiny_corpus, causal, tmp_path, "is a causal language model", "distilbert")
    refuse(tiny_corpus, recipe(encoders("bert"), task="generation"), tmp_path, "is an encoder", "smollm2-135m")


def test_target_modules_of_encoders_are_checked(encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of("classification"))
    wrong = recipe(encoders("distilbert"), target_modules="q_proj,v_lin")
    refuse(corpus, wrong, tmp_path, "no layer of the model is called q_proj", "q_lin, k_lin")


@pytest.mark.parametrize("head", HEADS)
def test_evaluations_score_the_answers_of_the_head_and_change_no_weight(
    head: str, encoders: Any, tmp_path: Path
) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of(head), [row(number, head, "validation") for number in range(9)])
    last = recipe(encoders("bert"), eval_steps=1, load_best_model_at_end=False, patience=0, lora_dropout=0.1)
    result = train(TrainRequest(corpus, tmp_path / "always", last))
    assert result.metric == HEAD_METRICS[HEADS[head].kind]
    loaded = load_adapter(Adapter.open(tmp_path / "always"))
    held_out = read_split(Corpus.open(corpus), "validation")
    inputs = [encode(loaded.tokenizer, example, last.max_length) for example in held_out]
    answers = predict(loaded, inputs, [example.context for example in held_out], batch_size=4)
    same = EncoderValidation(loaded.model.get_base_model(), loaded.tokenizer, loaded.base, HEADS[head], held_out, 1024)
    order = sorted(range(9), key=lambda number: len(inputs[number].ids), reverse=True)
    assert result.eval_figures == pytest.approx(same.score([answers[number] for number in order]))
    train(TrainRequest(corpus, tmp_path / "never", last.model_copy(update={"eval_steps": 0})))
    always, never = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("always", "never"))
    assert all(torch.equal(always[name], never[name]) for name in never)


def test_metric_of_other_rows_is_refused(encoders: Any, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", rows_of("extraction"), rows_of("extraction", 3))
    settings = recipe(encoders("bert"), metric_for_best_model="weighted_f1")
    refuse(
        corpus, settings, tmp_path / "out", "weighted_f1 is not measured", "Use auto, loss, answer_f1 or exact_match"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True, "quantization": "int8"},
        {"init_lora_weights": "pissa", "quantization": "none"},
        {"init_lora_weights": "loftq"},
        {"neftune_noise_alpha": 5.0, "use_rslora": True},
    ],
)
def test_methods_work_with_encoders_and_a_run_goes_on_from_their_adapters(
    changes: dict[str, Any], encoders: Any, tmp_path: Path
) -> None:
    corpus, model = corpus_of(tmp_path / "corpus", rows_of("classification")), encoders("distilbert")
    first = train(TrainRequest(corpus, tmp_path / "first", recipe(model, **changes)))
    merged = merge_adapter(MergeRequest(first.adapter, tmp_path / "model", corpus))
    assert merged.drift.max_abs_logit_diff < 1e-3
    again = AdapterRecipe(model=str(model), init_adapter=str(first.adapter), max_steps=1, learning_rate=1e-12)
    second = train(TrainRequest(corpus, tmp_path / "second", again))
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (first.adapter, second.adapter))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)


def test_adapter_with_other_labels_is_no_start(encoders: Any, tmp_path: Path) -> None:
    model = encoders("distilbert")
    first = train(TrainRequest(corpus_of(tmp_path / "a", rows_of("classification")), tmp_path / "first", recipe(model)))
    rows = [
        replace(row, label="other" if row.label == LABELS[0] else row.label, choices=("other", *LABELS[1:]))
        for row in rows_of("classification")
    ]
    settings = recipe(model, init_adapter=str(first.adapter))
    refuse(corpus_of(tmp_path / "b", rows), settings, tmp_path / "second", "has another head", "other")
