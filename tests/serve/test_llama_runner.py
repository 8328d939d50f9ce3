"""The runner of llama.cpp: what many sequences with many adapters compute in one pass is what each computes alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from finetune.artifacts import Adapter, writing
from finetune.errors import CheckFailedError, InputError
from finetune.models.find import find_base
from finetune.models.gguf.families import read_shape
from finetune.models.gguf.writer import write_model
from finetune.models.tokenizer import load_tokenizer
from finetune.serve.runners import llama_runner, memory
from finetune.serve.runners.llama_batch import PASS
from finetune.serve.runners.llama_runner import LlamaRunner
from finetune.serve.runners.runner import ADAPTER_COUNT, Extension

from ..export.test_gguf import FAMILIES, SPECIAL
from ..tiny_shape import WIDTHS
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
MAX_KL = 0.01  # nats per token
CLOSE = 0.1  # of logits up to 10; weights, keys, values and sums of values have 16 bits in llama.cpp


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


@dataclass
class Answers:
    """The tokens that follow each prompt, and the logits of each of them."""

    tokens: dict[str | None, list[int]]
    logits: dict[str | None, Tensor]


def answer(
    runner: LlamaRunner, names: Sequence[str | None], *, chunk: int = 1000, like: Answers | None = None
) -> Answers:
    """The greedy answers to the prompts of these adapters, computed together; with `like`, those tokens instead."""
    slots: dict[str | None, int] = {}
    waiting: dict[str | None, list[int]] = {}
    for name in names:
        opened = runner.open(PROMPTS[name], name)
        slots[name], waiting[name] = opened.slot, PROMPTS[name][opened.cached :]
    tokens: dict[str | None, list[int]] = {name: [] for name in names}
    rows: dict[str | None, list[Tensor]] = {name: [] for name in names}
    while slots:
        parts = {name: tuple(waiting[name][:chunk]) for name in slots}
        logits = runner.advance([Extension(slots[name], part) for name, part in parts.items()])
        for row, (name, part) in zip(logits, parts.items(), strict=True):
            waiting[name] = waiting[name][len(part) :]
            if waiting[name]:
                continue
            number = len(tokens[name])
            tokens[name].append(int(row.argmax()) if like is None else like.tokens[name][number])
            rows[name].append(row)
            waiting[name] = tokens[name][-1:]
            if number == STEPS - 1:
                runner.close(slots.pop(name))
    return Answers(tokens, {name: torch.stack(each) for name, each in rows.items()})


def require_close(one: Answers, other: Answers) -> None:
    for name, logits in one.logits.items():
        torch.testing.assert_close(logits, other.logits[name], atol=CLOSE, rtol=CLOSE)


def test_adapters_in_one_pass_compute_what_each_computes_in_transformers(
    runner: LlamaRunner, expected: Mapping[str | None, Tensor]
) -> None:
    together = answer(runner, NAMES)
    for name, row in expected.items():
        torch.testing.assert_close(together.logits[name][0], row, atol=CLOSE, rtol=CLOSE)
    for name in NAMES:
        require_close(answer(runner, (name,), like=together), together)
        require_close(answer(runner, (name,), chunk=3, like=together), together)
    assert len({tuple(tokens) for tokens in together.tokens.values()}) == len(NAMES)


def test_any_number_of_adapters_with_prompts_of_any_length_in_one_pass(
    make_runner: Callable[[], LlamaRunner],
) -> None:
    together = answer(make_runner(), NAMES)
    for names in (("health", "finance"), (None, "news"), ("finance", "law", "news", None), NAMES[:4], NAMES[::-1]):
        require_close(answer(make_runner(), names, like=together), together)
        require_close(answer(make_runner(), names, chunk=2, like=together), together)


ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in FAMILIES} | {
    "rsLoRA": ("llama", {"use_rslora": True}),
    "patterns": ("qwen2", {"alpha_pattern": {"q_proj": 3}, "rank_pattern": {"up_proj": 2}}),
    "some layers": ("llama", {"target_modules": ["v_proj", "down_proj"]}),
}


@pytest.mark.parametrize(("family", "settings"), ADAPTERS.values(), ids=ADAPTERS)
def test_adapters_of_every_family_compute_what_peft_computes(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    config = AutoConfig.for_model(vocab_size=300, max_position_embeddings=256, **WIDTHS | SPECIAL | FAMILIES[family])
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in plain.parameters():
            weight += 0.3 * torch.randn_like(weight)
    plain.save_pretrained(tmp_path / "model")
    shape = read_shape(tmp_path / "model")
    write_model(tmp_path / "model", shape, None, tmp_path / "base.gguf", precision="f32", name="tiny")
    runner = LlamaRunner(tmp_path / "base.gguf", shape, slots=3, context=64)
    ids = tuple(range(5, 25))
    with torch.inference_mode():
        expected = [plain(torch.tensor([ids])).logits[0, -1]]
    options: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear"} | settings
    model: Any = get_peft_model(plain, LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    for number in range(2):
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    torch.nn.init.normal_(weight, std=0.1)
        with writing(tmp_path / str(number), Adapter, overwrite=False) as writer:
            model.save_pretrained(str(writer.folder))
            writer.manifest |= {"config": {}, "parents": {}}
        runner.load_adapter(str(number), tmp_path / str(number))
        with torch.inference_mode():
            expected.append(model(torch.tensor([ids])).logits[0, -1])
    slots = [runner.open(ids, name).slot for name in (None, "0", "1")]
    runner.advance([Extension(slot, ids[:-1]) for slot in slots])
    given = runner.advance([Extension(slot, ids[-1:]) for slot in slots])
    for ours, theirs in zip(given.log_softmax(-1), torch.stack(expected).log_softmax(-1), strict=True):
        assert (theirs.exp() * (theirs - ours)).sum() < MAX_KL


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
            torch.testing.assert_close(logits, row, atol=CLOSE, rtol=CLOSE)
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
    torch.testing.assert_close(shared[0], alone[0], atol=CLOSE, rtol=CLOSE)


def test_many_at_once_are_not_slowed_down_by_sequences_that_have_ended(
    runner: LlamaRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_runner, "KEPT", 10)
    for name in ("health", "law"):
        slot = runner.open(PROMPTS[name], name).slot
        runner.advance([Extension(slot, tuple(PROMPTS[name]))])
        runner.close(slot)
    slots = [runner.open([number, 8], None).slot for number in (3, 4)]
    runner.advance([Extension(slots[0], (3, 8))])
    assert [one.tokens for one in runner._sequences if one.adapter == "health"] == [PROMPTS["health"]]
    runner.advance([Extension(slots[0], (9,)), Extension(slots[1], (4, 8))])
    assert [one.tokens for one in runner._sequences if one.adapter == "health"] == []
    assert runner.open(PROMPTS["law"], "law").cached == len(PROMPTS["law"]) - 1


def failing_at(number: int, function: Callable[..., None]) -> Callable[..., None]:
    """A function that fails when it is called for the time of this number, from 0 on."""
    calls = itertools.count()

    def call(*args: Any) -> None:
        if next(calls) == number:
            raise RuntimeError
        function(*args)

    return call


def test_after_a_failed_pass_all_sequences_are_what_they_were(
    make_runner: Callable[[], LlamaRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An advance of two passes fails in each of them; tried again, it computes what it would have."""
    names = (*NAMES, None)
    prompts = [tuple(range(5 + number, 105 + number)) for number in range(len(names))]
    assert sum(map(len, prompts)) > PASS

    def advance(runner: LlamaRunner, failing: Sequence[int]) -> Tensor:
        slots = [runner.open(prompt, name).slot for prompt, name in zip(prompts, names, strict=True)]
        extensions = [Extension(slot, prompt) for slot, prompt in zip(slots, prompts, strict=True)]
        for number in failing:
            with monkeypatch.context() as patch:
                patch.setattr(runner._adapters, "assign", failing_at(number, runner._adapters.assign))
                with pytest.raises(RuntimeError):
                    runner.advance(extensions)
        runner.advance(extensions)
        return runner.advance([Extension(slot, (5,)) for slot in slots])

    torch.testing.assert_close(advance(make_runner(), [0, 1]), advance(make_runner(), []), atol=0, rtol=0)


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
    before = answer(runner, ("law",))
    runner.unload_adapter("law")
    runner.load_adapter("law", adapters["news"])
    opened = runner.open(PROMPTS["law"], "law")
    assert opened.cached == 0
    runner.close(opened.slot)
    assert answer(runner, ("law",)).tokens != before.tokens
    runner.unload_adapter("law")
    runner.load_adapter("law", adapters["law"])
    require_close(answer(runner, ("law",), like=before), before)


def test_adapter_without_effect_is_refused_even_while_every_slot_is_taken(
    runner: LlamaRunner, tiny_model: Path, tmp_path: Path
) -> None:
    for number in range(runner.slots):
        runner.open([number, 3], None)
    with pytest.raises(CheckFailedError, match="idle changes nothing"):
        runner.load_adapter("idle", make_adapter(tmp_path / "idle", tiny_model, 0, std=0.0))
    runner.load_adapter("idle", make_adapter(tmp_path / "active", tiny_model, 0))


def test_a_sequence_goes_on_when_the_first_adapter_arrives(
    gguf_file: Path, tiny_model: Path, adapters: Mapping[str, Path]
) -> None:
    prompt, rows = PROMPTS[None], []
    for is_loaded in (False, True):
        runner = LlamaRunner(gguf_file, read_shape(tiny_model), slots=2, context=64)
        slot = runner.open(prompt, None).slot
        runner.advance([Extension(slot, tuple(prompt[:-1]))])
        if is_loaded:
            runner.load_adapter("law", adapters["law"])
        rows.append(runner.advance([Extension(slot, tuple(prompt[-1:]))]))
    torch.testing.assert_close(rows[1], rows[0], atol=CLOSE, rtol=CLOSE)


def test_adapters_used_last_stay_in_memory_and_others_are_read_again(
    runner: LlamaRunner, adapters: Mapping[str, Path]
) -> None:
    before = answer(runner, ("law",))
    for number in range(ADAPTER_COUNT):
        runner.load_adapter(f"news {number}", adapters["news"])
    assert answer(runner, ("law",), like=before).tokens == before.tokens
    require_close(answer(runner, ("law",), like=before), before)
    assert "news" not in runner._resident._resident


def test_file_that_llama_cpp_cannot_load_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF and nothing else")
    with pytest.raises(InputError, match=r"broken\.gguf cannot be loaded by llama\.cpp"):
        LlamaRunner(file)


def test_slots_keep_inside_the_memory(gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, left = 100 << 20, 1 << 20
    monkeypatch.setattr(memory, "used_memory", lambda: used)
    runner = LlamaRunner(gguf_file, max_memory=used + gguf_file.stat().st_size + left)
    assert 0 < runner.room < LlamaRunner(gguf_file).room
