"""Decoder layers of the Llama family compute the same in fewer operations, and as before outside of the runner's passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.models.find import find_base
from finetune.models.load import load
from finetune.recipe import AdapterRecipe
from finetune.serve.runners import short_layers
from finetune.serve.runners.runner import Extension
from finetune.serve.runners.transformers_runner import TransformersRunner

PROMPTS = ([5, 9, 30, 31], [17, 18, 19], [50, 51, 52, 53, 54])


class Count(TorchDispatchMode):
    """Counts the operations of torch."""

    operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def decode(model: Path) -> tuple[Tensor, int, Any]:
    """The logits after a pass with one token of each of several sequences, its operations, and the model."""
    loaded = load(find_base(str(model)), AdapterRecipe(model=str(model), quantization="none"))
    runner = TransformersRunner(loaded)
    slots = [runner.open(prompt, None).slot for prompt in PROMPTS]
    runner.advance([Extension(slot, tuple(prompt)) for slot, prompt in zip(slots, PROMPTS, strict=True)])
    counter: Any = Count
    with counter() as count:
        logits = runner.advance([Extension(slot, (slot + 7,)) for slot in slots])
    return logits, count.operations, loaded.model


def test_layers_in_other_precisions_stay_as_they_are(tiny_model: Path) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), quantization="none", compute_dtype="bfloat16")
    model: Any = load(find_base(str(tiny_model)), recipe).model
    short_layers.shorten_layers(model)
    assert not any("forward" in vars(layer) for layer in model.model.layers)
    short_layers.shorten_layers(model.float())
    assert all("forward" in vars(layer) for layer in model.model.layers)


def test_shorter_layers_compute_the_same_in_fewer_operations(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, operations, model = decode(tiny_model)
    ids = torch.tensor([PROMPTS[0]])
    whole = model(input_ids=ids).logits
    monkeypatch.setattr(short_layers, "LAYERS", set())
    plain, before, unchanged = decode(tiny_model)
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
    assert before - operations >= 15 * model.config.num_hidden_layers
    assert torch.equal(whole, unchanged(input_ids=ids).logits)
