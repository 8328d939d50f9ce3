"""The runner: what many sequences with many adapters compute in one pass is what each of them computes alone."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune.errors import ArtifactError, CheckFailedError, InputError
from finetune.models.find import find_base
from finetune.models.load import LoadedModel, attach_adapter, load
from finetune.models.structure import find_state, has_transposed_weights
from finetune.recipe import AdapterRecipe
from finetune.serve.runners import sequence_cache, slot_attention
from finetune.serve.runners.runner import Extension
from finetune.serve.runners.transformers_runner import TransformersRunner

from ..train.families import FAMILIES, Family
from ..train.family_models import write_family_model

PROMPTS: dict[str | None, list[int]] = {
    "a": [5, 9, 30, 31, 32, 33, 7, 8, 100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111],
    "b": [17, 18, 19],
    "c": [50, 51, 52, 53, 54, 55, 56],
    "d": [5, 9, 30, 31, 32, 33, 7],
    None: [5, 9, 30, 31, 32, 33, 7, 8, 100],
}
STEPS = 12


@pytest.fixture(scope="session")
def family_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """The folder of a family's tiny random model, made once."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    @functools.cache
    def make(family: Family) -> Path:
        return write_family_model(family, tokenizer, tmp_path_factory.mktemp("families") / family.kind)

    return make


def open_base(folder: Path) -> LoadedModel:
    return load(find_base(str(folder)), AdapterRecipe(quantization="none"))


def save_adapter(folder: Path, base: Path, seed: int, **settings: Any) -> Path:
    """A PEFT adapter with random matrices."""
    options: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | settings
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    options["fan_in_fan_out"] = has_transposed_weights(model)
    if model.config.model_type == "falcon_h1":
        options["target_modules"] = ["q_proj", "up_proj", "in_proj"]  # PEFT has none for the others
    torch.manual_seed(seed)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
        elif parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


class Driver:
    """Extends prompts greedily, as a scheduler would."""

    def __init__(self, runner: TransformersRunner) -> None:
        self.runner = runner
        self.logits: dict[str | None, Tensor] = {}

    def run(self, prompts: dict[str | None, list[int]], *, chunk: int = 100) -> dict[str | None, list[int]]:
        """The greedy answers of prompts, each by its adapter, computed together; prompts in chunks."""
        chunk = chunk if self.runner.chunk < self.runner.context else self.runner.context
        waiting: dict[str | None, list[int]] = {}
        slots: dict[str | None, int] = {}
        answers: dict[str | None, list[int]] = {name: [] for name in prompts}
        for name, prompt in prompts.items():
            opened = self.runner.open(prompt, name)
            slots[name], waiting[name] = opened.slot, prompt[opened.cached :]
        while slots:
            parts = {name: tuple(waiting[name][:chunk]) for name in slots}
            logits = self.runner.advance([Extension(slots[name], part) for name, part in parts.items()])
            for row, (name, part) in zip(logits, parts.items(), strict=True):
                waiting[name] = waiting[name][len(part) :]
                if waiting[name]:
                    continue
                self.logits.setdefault(name, row)
                answers[name].append(int(row.argmax()))
                waiting[name] = answers[name][-1:]
                if len(answers[name]) == STEPS:
                    self.runner.close(slots.pop(name))
        return answers


def reference(
    loaded: LoadedModel, adapters: dict[str, Path], prompts: dict[str | None, list[int]]
) -> tuple[dict[str | None, Tensor], dict[str | None, list[int]]]:
    """The logits after each prompt and its greedy answer, by PEFT and without a cache."""
    model: Any = copy.deepcopy(loaded.model)
    for adapter, folder in adapters.items():
        model = attach_adapter(model, folder, adapter)
    logits: dict[str | None, Tensor] = {}
    answers: dict[str | None, list[int]] = {}
    for name, prompt in prompts.items():
        context = model.disable_adapter() if name is None else torch.no_grad()
        if name is not None:
            model.set_adapter(name, inference_mode=True)
        ids = list(prompt)
        with context, torch.no_grad():
            for _ in range(STEPS):
                row = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
                logits.setdefault(name, row)
                ids.append(int(row.argmax()))
        answers[name] = ids[len(prompt) :]
    return logits, answers


def make_adapters(folder: Path, base: Path, **settings: Any) -> dict[str, Path]:
    return {name: save_adapter(folder / name, base, seed, **settings) for seed, name in enumerate("abcd")}


def require_agreement(base: Path, adapters: dict[str, Path]) -> TransformersRunner:
    """Check logits and greedy answers, together and one by one, against PEFT."""
    loaded = open_base(base)
    logits, answers = reference(loaded, adapters, PROMPTS)
    runner = TransformersRunner(loaded)
    for adapter, folder in adapters.items():
        runner.load_adapter(adapter, folder)
    together = Driver(runner)
    assert together.run(PROMPTS) == answers
    for name, row in logits.items():
        torch.testing.assert_close(together.logits[name], row, atol=1e-5, rtol=1e-5)
    for name, prompt in PROMPTS.items():
        assert Driver(runner).run({name: prompt}, chunk=4) == {name: answers[name]}
    beside = {name: prompt if name == "a" else prompt[:2] for name, prompt in PROMPTS.items()}  # a long prompt in parts
    assert Driver(runner).run(beside, chunk=8) == {
        name: Driver(runner).run({name: beside[name]})[name] for name in beside
    }
    assert len({tuple(answer) for answer in answers.values()}) == len(PROMPTS)
    return runner


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_adapters_of_every_family_compute_together_what_each_computes_alone(
    family: Family, family_model: Callable[[Family], Path], tmp_path: Path
) -> None:
    base = family_model(family)
    runner = require_agreement(base, make_adapters(tmp_path, base))
    loaded = open_base(base)
    assert runner._is_joint == (find_state(loaded.model) is None)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True, "rank_pattern": {"q_proj": 2, "down_proj": 8}, "alpha_pattern": {"up_proj": 3}},
        {"use_dora": True},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"modules_to_save": ["norm"]},
    ],
    ids=["patterns", "dora", "embedding", "head", "saved"],
)
def test_other_kinds_of_adapters(
    settings: dict[str, Any], family_model: Callable[[Family], Path], tmp_path: Path
) -> None:
    base = family_model(FAMILIES[0])
    require_agreement(base, make_adapters(tmp_path, base, **settings))


def test_adapters_of_different_kinds_in_one_pass(family_model: Callable[[Family], Path], tmp_path: Path) -> None:
    base = family_model(FAMILIES[0])
    kinds: dict[str, dict[str, Any]] = {
        "a": {"r": 8, "use_dora": True},
        "b": {"target_modules": ["v_proj"]},
        "c": {"modules_to_save": ["lm_head"]},
        "d": {"r": 2},
    }
    adapters = {
        name: save_adapter(tmp_path / name, base, seed, **kind) for seed, (name, kind) in enumerate(kinds.items())
    }
    require_agreement(base, adapters)


def test_a_prefix_is_computed_once_but_never_shared_between_adapters(
    family_model: Callable[[Family], Path], tmp_path: Path
) -> None:
    base = family_model(FAMILIES[0])
    adapters = make_adapters(tmp_path, base)
    loaded = open_base(base)
    prompt = PROMPTS["a"]
    alone = {}
    for name in ("a", "b", None):
        runner = TransformersRunner(open_base(base))
        if name is not None:
            runner.load_adapter(name, adapters[name])
        alone[name] = Driver(runner).run({name: prompt})
    runner = TransformersRunner(loaded)
    for name in ("a", "b"):
        runner.load_adapter(name, adapters[name])
    for _ in range(2):
        for name in ("a", "b", None):
            opened = runner.open(prompt, name)
            assert opened.cached in (0, len(prompt) - 1)
            runner.close(opened.slot)
            assert Driver(runner).run({name: prompt}) == alone[name]
    assert runner.open([*prompt, 3, 4], "a").cached == len(prompt)
    assert runner.open([*prompt[:6], 3, 4], "b").cached == 6
    assert runner.open([3, 4], "b").cached == 0


def test_what_another_adapter_of_the_same_name_computed_is_forgotten(
    family_model: Callable[[Family], Path], tmp_path: Path
) -> None:
    base = family_model(FAMILIES[0])
    adapters = make_adapters(tmp_path, base)
    runner = TransformersRunner(open_base(base))
    runner.load_adapter("mine", adapters["a"])
    first = Driver(runner).run({"mine": PROMPTS["a"]})
    runner.unload_adapter("mine")
    runner.load_adapter("mine", adapters["b"])
    second = Driver(runner).run({"mine": PROMPTS["a"]})
    assert first != second
    assert second["mine"] == reference(open_base(base), {"b": adapters["b"]}, {"b": PROMPTS["a"]})[1]["b"]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"target_modules": ["q_proj"], "trainable_token_indices": [5]}, InputError),
        ({"lora_alpha": 0}, CheckFailedError),
    ],
    ids=["new tokens", "without effect"],
)
def test_adapters_that_cannot_be_served_are_refused(
    settings: dict[str, Any], error: type[Exception], family_model: Callable[[Family], Path], tmp_path: Path
) -> None:
    base = family_model(FAMILIES[0])
    folder = save_adapter(tmp_path / "bad", base, 0, **settings)
    runner = TransformersRunner(open_base(base))
    with pytest.raises(error, match="bad"):
        runner.load_adapter("bad", folder)


def test_an_adapter_of_another_model_is_refused(
    family_model: Callable[[Family], Path], tiny_model: Path, tmp_path: Path
) -> None:
    folder = save_adapter(tmp_path / "other", tiny_model, 0)
    with pytest.raises(ArtifactError, match="does not fit"):
        TransformersRunner(open_base(family_model(FAMILIES[0]))).load_adapter("other", folder)


def test_sequences_that_outgrow_the_common_tensors_go_on_beside_short_ones(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (
        sequence_cache,
        slot_attention,
    ):  # "a" begins behind it, "c" and None cross it, the others stay below
        monkeypatch.setattr(module, "POOLED", 16)
    runner = require_agreement(tiny_model, make_adapters(tmp_path, tiny_model))
    assert runner._is_joint
