"""The loss of supervised tokens only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from finetune.plan.memory import count_positions
from finetune.plan.shapes import SCALED_LOGITS
from finetune.train.batches.packing import UNSUPERVISED


def summed_loss(causal: Any, batch: dict[str, Any]) -> Tensor:
    """Summed negative log-likelihood of a batch's supervised tokens, in nats."""
    return token_losses(causal, batch).sum()


def row_losses(causal: Any, batch: dict[str, Any]) -> Tensor:
    """Negative log-likelihood of the supervised tokens of each row of a batch, in nats: (rows,)."""
    parts = token_losses(causal, batch).split([tokens for _, tokens in batch["answers"]])
    sums = {row: part.sum() for (row, _), part in zip(batch["answers"], parts, strict=True)}
    return torch.stack([sums[row] for row in range(len(sums))])


def token_losses(causal: Any, batch: dict[str, Any]) -> Tensor:
    """Negative log-likelihood of each supervised token of a batch, in nats: (supervised tokens,), in their order.

    Args:
        causal: a transformers causal language model, with or without LoRA layers; not the wrapper around it, which
            accelerate may run in autocast.
        batch: from `batches.PackedBatches` or `batches.PaddedBatches`.
    """
    packed = "layout" in batch
    names = ("input_ids", "position_ids", "layout") if packed else ("input_ids", "attention_mask")
    inputs = {name: batch[name] for name in names}
    targets = batch["labels"] if packed else nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=UNSUPERVISED)
    config, head = causal.config.get_text_config(), causal.get_output_embeddings()
    own = batch.get("own_logits") or any(getattr(config, name, None) for name in SCALED_LOGITS)
    if own or (torch.is_grad_enabled() and head.weight.requires_grad):
        logits = causal(**inputs, use_cache=False).logits
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        flat = targets.flatten()
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), flat, ignore_index=UNSUPERVISED, reduction="none")
        return losses[flat != UNSUPERVISED]
    hidden = causal.base_model(**inputs, use_cache=False).last_hidden_state
    softcap = getattr(config, "final_logit_softcapping", None)
    return supervised_losses(hidden, targets, head, softcap, is_frugal=causal.is_activation_checkpointing)


def supervised_losses(
    hidden: Tensor, targets: Tensor, head: Any, softcap: float | None = None, *, is_frugal: bool = False
) -> Tensor:
    """Negative log-likelihood of each supervised token, in nats, through a frozen output head: (supervised tokens,).

    Only positions that predict a supervised token pass through the head, a few at a time, so the time is proportional to
    `supervised × vocabulary` instead of `tokens × vocabulary`, and memory is bounded. In classification rows, one token in
    twenty is supervised. Equal to the full computation; tests/train/test_loss.py compares value and gradient.

    Args:
        hidden: (batch, tokens, width) final hidden states.
        targets: (batch, tokens) the token that each position predicts, UNSUPERVISED where it carries no loss.
        head: the output layer, width → vocabulary.
        softcap: Gemma 2 bounds its logits to ±softcap by tanh (arXiv 2408.00118, section 2).
        is_frugal: fewer logits at a time.
    """
    mask, count = targets != UNSUPERVISED, count_positions(len(head.weight), is_frugal=is_frugal)
    apply: Any = _HeadLoss.apply
    losses: Tensor = apply(hidden[mask], targets[mask], head.weight, getattr(head, "bias", None), softcap, count)
    return losses


class _HeadLoss(torch.autograd.Function):
    """Cross-entropies after a frozen linear layer; their gradients are computed in the forward pass, from the same logits."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        softcap: float | None,
        count: int,
    ) -> Tensor:
        precision = torch.promote_types(hidden.dtype, torch.float32)
        losses = hidden.new_empty(len(hidden), dtype=precision)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), count):
            part, goal = hidden[start : start + count], targets[start : start + count, None]
            logits = nn.functional.linear(part.to(weight.dtype), weight, bias).to(precision)
            slope = None
            if softcap is not None:
                torch.tanh_(logits.div_(softcap))
                slope = None if gradient is None else logits.square().neg_().add_(1)
                logits.mul_(softcap)
            wanted, largest = logits.gather(1, goal), logits.amax(-1, keepdim=True)
            total = logits.sub_(largest).exp_().sum(-1, keepdim=True)  # in place: torch.logsumexp makes a copy
            losses[start : start + count] = (total.log() + largest - wanted)[:, 0]
            if gradient is not None:
                logits.div_(total).scatter_add_(1, goal, -torch.ones_like(goal, dtype=precision))
                if slope is not None:
                    logits.mul_(slope)
                gradient[start : start + count] = logits.to(weight.dtype) @ weight
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        factor = gradients[0][:, None]  # 1 / tokens, which bfloat16 would round by up to 0.4 % for every weight alike
        return (gradient.to(factor.dtype) * factor).to(gradient.dtype), None, None, None, None, None
