"""The runner of llama.cpp: what many sequences with many adapters compute in one pass is what each computes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from finetune.errors import CheckFailedError, InputError
from finetune.models.find import find_base
from finetune.models.gguf.families import read_shape
from finetune.models.gguf.writer import write_model
from finetune.models.tokenizer import load_tokenizer
from finetune.serve.llama_runner import LlamaRunner
from finetune.serve.runner import Extension

from .conftest import make_adapter

NAMES = ("health", "finance", "law", "news", None)
PROMPTS: dict[str | None, list[int]] = {
    "health": [5, 9, 30, 31, 32, 33, 7, 8, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111],
    "finance": [17, 18, 19],
    "law": [50, 51, 52, 53, 54, 55, 56],
    "news": [5, 9, 30, 31, 32, 33, 7],
    None: [5, 9, 30, 31, 32, 33, 7, 8, 100],
}
STEPS = 10
CLOSE = 0.02  # of logits of about 5: weights, keys and values have 16 bits in one, and 32 in the other


@pytest.fixture(scope="module")
def adapters(
    two_adapters: dict[str, Path], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("more")
    more = {name: make_adapter(folder / name, tiny_model, seed) for seed, name in enumerate(("law", "news"), 2)}
    return two_adapters | more


@pytest.fixture(scope="module")
def gguf_file(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    write_model(tiny_model, read_shape(tiny_model), tokenizer, file, precision="f16", name="tiny")
    return file


@pytest.fixture
def make_runner(gguf_file: Path, tiny_model: Path, adapters: Mapping[str, Path]) -> Callable[[], LlamaRunner]:
    """Makes runners with all adapters, and room for six sequences of 128 tokens."""

    def make() -> LlamaRunner:
        runner = LlamaRunner(gguf_file, read_shape(tiny_model), slots=6, context=128)
        for name, folder in adapters.items():
            runner.load_adapter(name, folder)
        return runner

    return make


@pytest.fixture
def runner(make_runner: Callable[[], LlamaRunner]) -> LlamaRunner:
    return make_runner()


@pytest.fixture(scope="module")
def expected(tiny_model: Path, adapters: Mapping[str, Path]) -> dict[str | None, Tensor]:
    """The logits after each prompt, by PEFT in transformers."""
    logits = {}
    for name, prompt in PROMPTS.items():
        model: Any = AutoModelForCausalLM.from_pretrained(tiny_model)
        if name is not None:
            model = PeftModel.from_pretrained(model, adapters[name])
        with torch.inference_mode():
            logits[name] = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return logits


def answer(
    runner: LlamaRunner, names: tuple[str | None, ...], *, chunk: int = 1000
) -> tuple[dict[str | None, list[int]], dict[str | None, Tensor]]:
    """The greedy answers to the prompts of these adapters, computed together, and the logits after each prompt."""
    slots: dict[str | None, int] = {}
    waiting: dict[str | None, list[int]] = {}
    for name in names:
        opened = runner.open(PROMPTS[name], name)
        slots[name], waiting[name] = opened.slot, PROMPTS[name][opened.cached :]
    answers: dict[str | None, list[int]] = {name: [] for name in names}
    first: dict[str | None, Tensor] = {}
    while slots:
        parts = {name: tuple(waiting[name][:chunk]) for name in slots}
        logits = runner.advance([Extension(slots[name], part) for name, part in parts.items()])
        for row, (name, part) in zip(logits, parts.items(), strict=True):
            waiting[name] = waiting[name][len(part) :]
            if waiting[name]:
                continue
            first.setdefault(name, row)
            answers[name].append(int(row.argmax()))
            waiting[name] = answers[name][-1:]
            if len(answers[name]) == STEPS:
                runner.close(slots.pop(name))
    return answers, first


def test_adapters_in_one_pass_compute_what_each_computes_in_transformers(
    runner: LlamaRunner, expected: Mapping[str | None, Tensor]
) -> None:
    together, logits = answer(runner, NAMES)
    for name, row in expected.items():
        torch.testing.assert_close(logits[name], row, atol=CLOSE, rtol=CLOSE)
    for name in NAMES:
        assert answer(runner, (name,))[0] == {name: together[name]}
        assert answer(runner, (name,), chunk=3)[0] == {name: together[name]}
    assert len({tuple(tokens) for tokens in together.values()}) == len(NAMES)


def test_few_long_and_many_short_sequences_in_one_pass(
    runner: LlamaRunner, make_runner: Callable[[], LlamaRunner]
) -> None:
    alone = {name: answer(runner, (name,))[0][name] for name in NAMES}
    runner = make_runner()
    assert answer(runner, ("health", "finance"))[0] == {name: alone[name] for name in ("health", "finance")}
    assert answer(runner, (None, "news"), chunk=2)[0] == {name: alone[name] for name in (None, "news")}


def test_a_prefix_is_computed_once_but_never_shared_between_adapters(make_runner: Callable[[], LlamaRunner]) -> None:
    prompt = PROMPTS["health"]
    expected = {}
    for name in ("health", "finance", None):
        runner = make_runner()
        slot = runner.open(prompt, name).slot
        expected[name] = runner.advance([Extension(slot, tuple(prompt))])[0]
        runner.close(slot)
    runner = make_runner()
    for repetition in range(2):
        for name, row in expected.items():
            opened = runner.open(prompt, name)
            assert opened.cached == (len(prompt) - 1) * repetition
            logits = runner.advance([Extension(opened.slot, tuple(prompt[opened.cached :]))])[0]
            torch.testing.assert_close(logits, row, atol=1e-3, rtol=1e-3)
            runner.close(opened.slot)


def test_a_sequence_in_progress_lends_its_beginning(
    runner: LlamaRunner, make_runner: Callable[[], LlamaRunner]
) -> None:
    prompt = tuple(PROMPTS["health"])
    first = runner.open(prompt, "health")
    runner.advance([Extension(first.slot, prompt[first.cached :])])
    second = runner.open((*prompt[:12], 3, 4), "health")
    assert (second.slot != first.slot, second.cached) == (True, 12)
    shared = runner.advance([Extension(second.slot, (3, 4)), Extension(first.slot, (3,))])
    runner = make_runner()
    slot = runner.open((*prompt[:12], 3, 4), "health").slot
    alone = runner.advance([Extension(slot, (*prompt[:12], 3, 4))])
    torch.testing.assert_close(shared[0], alone[0], atol=1e-3, rtol=1e-3)


def test_closing_frees_a_slot(runner: LlamaRunner) -> None:
    opened = [runner.open([number, 7, 8], None).slot for number in range(runner.slots)]
    assert sorted(opened) == [*range(runner.slots)]
    for _ in range(3):
        runner.close(opened[2])
        assert runner.open([9, 9, 9], "law").slot == opened[2]


def test_every_slot_can_be_full(runner: LlamaRunner, make_runner: Callable[[], LlamaRunner]) -> None:
    tokens = tuple(number % 300 + 3 for number in range(runner.context))
    for _ in range(2):
        slots = [runner.open([number, *tokens[1:]], "law").slot for number in range(runner.slots)]
        logits = runner.advance([Extension(slot, (number, *tokens[1:])) for number, slot in enumerate(slots)])
        assert logits.shape == (runner.slots, runner.vocabulary)
        assert torch.isfinite(logits).all()
        for slot in slots:
            runner.close(slot)
        runner = make_runner()


def test_an_adapter_of_the_same_name_starts_afresh(runner: LlamaRunner, adapters: Mapping[str, Path]) -> None:
    before = answer(runner, ("law",))[0]["law"]
    runner.unload_adapter("law")
    runner.load_adapter("law", adapters["news"])
    opened = runner.open(PROMPTS["law"], "law")
    assert opened.cached == 0
    runner.close(opened.slot)
    assert answer(runner, ("law",))[0]["law"] != before
    runner.unload_adapter("law")
    runner.load_adapter("law", adapters["law"])
    assert answer(runner, ("law",))[0]["law"] == before


def test_adapter_without_effect_is_refused(runner: LlamaRunner, tiny_model: Path, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "idle", tiny_model, 0, std=0.0)
    with pytest.raises(CheckFailedError, match="idle changes nothing"):
        runner.load_adapter("idle", folder)
    runner.load_adapter("idle", make_adapter(tmp_path / "active", tiny_model, 0))


def test_file_that_llama_cpp_cannot_load_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF and nothing else")
    with pytest.raises(InputError, match=r"broken\.gguf cannot be loaded by llama\.cpp"):
        LlamaRunner(file)
