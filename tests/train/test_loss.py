"""The fast loss is the plain loss: same value, same gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune.train.loss import supervised_loss


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_value_and_gradient_equal_the_full_computation(tiny_model: Path, softcap: float | None) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (3, 12))
    labels = torch.where(torch.rand(3, 12) < 0.4, ids, -100)

    hidden = model.model(input_ids=ids).last_hidden_state
    fast = supervised_loss(hidden, labels, model.get_output_embeddings(), softcap)
    fast.backward()
    fast_gradient = model.model.layers[0].mlp.up_proj.weight.grad.clone()
    model.zero_grad()

    logits = model(input_ids=ids).logits[:, :-1]
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    plain.backward()

    assert plain.item() > 1
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(fast_gradient, model.model.layers[0].mlp.up_proj.weight.grad)
