"""The loss of supervised tokens only, and the trainer that uses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from trl import SFTTrainer

# Configuration keys by which some architectures scale their logits; those keep TRL's own loss, which knows them all.
SCALED_LOGITS = ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


def supervised_loss(hidden: Tensor, labels: Tensor, head: nn.Module, softcap: float | None = None) -> Tensor:
    """Summed negative log-likelihood of the supervised tokens, in nats.

    Only positions whose next token carries a label pass through the output head, so time and memory are
    `supervised × vocabulary` instead of `tokens × vocabulary`: in classification rows one token in twenty is supervised.
    Equal to the full computation; tests/train/test_loss.py compares value and gradient.

    Args:
        hidden: (batch, tokens, width) final hidden states.
        labels: (batch, tokens) token ids, -100 where unsupervised; shifted here, not by the caller.
        head: the output layer, width → vocabulary.
        softcap: Gemma 2 bounds its logits to ±softcap by tanh (arXiv 2408.00118, section 2).
    """
    targets = labels[:, 1:]
    mask = targets != -100
    logits = head(hidden[:, :-1][mask]).float()
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    return nn.functional.cross_entropy(logits, targets[mask], reduction="sum")


class SupervisedTrainer(SFTTrainer):
    """SFTTrainer that counts its tokens and, on a CPU, computes `supervised_loss`.

    TRL 1.16 sends every position through the output head where there is no Triton; on a GPU its fused head is used.
    """

    tokens = 0  # of training batches so far, without padding
    supervised_tokens = 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Mean negative log-likelihood a supervised token of the whole optimizer step, in nats."""
        supervised = (inputs["labels"][:, 1:] != -100).sum()
        peft_model: Any = self.model
        if peft_model.training:
            mask = inputs.get("attention_mask")
            self.tokens += int(inputs["input_ids"].numel() if mask is None else mask.sum())
            self.supervised_tokens += int(supervised)
        config = peft_model.config.get_text_config()
        scaled = any(getattr(config, name, None) for name in SCALED_LOGITS)
        if return_outputs or scaled or supervised.device.type != "cpu" or self.accelerator.num_processes > 1:
            plain: Any = super().compute_loss
            return plain(model, inputs, return_outputs, num_items_in_batch)
        causal = self.accelerator.unwrap_model(model).get_base_model()
        hidden = causal.base_model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).last_hidden_state
        softcap = getattr(config, "final_logit_softcapping", None)
        total = supervised_loss(hidden, inputs["labels"], causal.get_output_embeddings(), softcap)
        count = supervised if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        return total / count.clamp(min=1)
