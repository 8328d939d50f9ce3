"""The fast loss is the plain loss: same value, same gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune.train.batches.collate import NumberedRows, PackedBatches, PaddedBatches
from finetune.train.fast import loss as loss_module
from finetune.train.fast import prefix_attention
from finetune.train.fast.loss import row_losses, summed_loss, supervised_losses

from .test_packing import rows_of


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("chunk", [3, 256])
def test_value_and_gradient_equal_the_full_computation(
    tiny_model: Path, softcap: float | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "count_positions", lambda vocabulary, *, is_frugal: chunk)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (3, 12))
    targets = torch.where(torch.rand(3, 12) < 0.4, ids, -100)
    hidden = model.model(input_ids=ids).last_hidden_state.detach()
    head = model.get_output_embeddings()

    fast_hidden = hidden.clone().requires_grad_()
    fast = supervised_losses(fast_hidden, targets, head, softcap).sum()
    (fast * 0.5).backward()

    plain_hidden = hidden.clone().requires_grad_()
    logits = head(plain_hidden)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    (plain * 0.5).backward()

    assert plain.item() > 1
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(fast_hidden.grad, plain_hidden.grad)


@pytest.mark.parametrize("own_logits", [True, False])
@pytest.mark.parametrize("share", [True, False, None])
def test_losses_of_rows_add_up(tiny_model: Path, own_logits: bool, share: bool | None) -> None:
    """Packed, with shared prefixes or not, or padded: each row has the loss that it has alone."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    start = list(range(5, 17))
    tokens = [[*start, 40, 41, 42], [*start, 50, 51], [60, 61, 62, 63, 64, 65], [*start, 70, 71, 72, 73]]
    rows = NumberedRows(rows_of(tokens), rows_of([[1, 2, 3]]))
    items = [{"number": number} for number in range(len(tokens))]
    padded = PaddedBatches(rows, 0)
    alone = [float(summed_loss(model, padded([item])).detach()) for item in items]
    if share is not None:
        prefix_attention.register()
        model.set_attn_implementation(prefix_attention.PACKED)
    batch = (padded if share is None else PackedBatches(rows, share))(items) | {"own_logits": own_logits}
    losses = row_losses(model, batch)
    assert losses.tolist() == pytest.approx(alone, rel=1e-4)
    assert float(losses.sum().detach()) == pytest.approx(float(summed_loss(model, batch).detach()), rel=1e-6)


def test_float64_stays_float64() -> None:
    torch.manual_seed(1)
    head = torch.nn.Linear(8, 30).double()
    targets = torch.randint(0, 30, (2, 5))
    fast_hidden, plain_hidden = (torch.ones(2, 5, 8, dtype=torch.float64).requires_grad_() for _ in range(2))
    fast = supervised_losses(fast_hidden, targets, head).sum()
    fast.backward()
    plain = torch.nn.functional.cross_entropy(head(plain_hidden).flatten(0, 1), targets.flatten(), reduction="sum")
    plain.backward()
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fast_hidden.grad, plain_hidden.grad, rtol=1e-12, atol=1e-12)


def test_gradient_of_a_mean_is_divided_by_the_exact_count() -> None:
    """bfloat16 has 8 bits: rounded to it, 1 / 997 is off by 0.35 %, for every weight."""
    torch.manual_seed(1)
    count = 997
    hidden = torch.randn(1, count, 16).bfloat16()
    targets = torch.randint(0, 30, (1, count))
    head = torch.nn.Linear(16, 30, dtype=torch.bfloat16)
    gradients = []
    for factor in (1.0, torch.tensor(1.0) / count):
        part = hidden.clone().requires_grad_()
        (supervised_losses(part, targets, head).sum() * factor).backward()
        assert part.grad is not None
        gradients.append(part.grad.double().abs().sum())
    assert float(gradients[0] / gradients[1]) == pytest.approx(count, rel=5e-4)
