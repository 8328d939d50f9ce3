"""The likelihoods of the two answers of a pair."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.models.chat_template import Rendering, render_conversations
from finetune.models.load import LoadedModel
from finetune.records import Example
from finetune.scoring.inputs import RowsCallback
from finetune.scoring.supervised import supervised_logits


def pair_logprobs(
    loaded: LoadedModel, examples: Sequence[Example], *, batch_size: int, on_rows: RowsCallback | None = None
) -> list[tuple[float, float]]:
    """Log-probability, in nats, of the chosen and of the rejected answer of each pair, summed over its tokens.

    Direct preference optimisation compares these sums (Rafailov et al., DPO, 2023, section 4), not means over tokens.
    """
    pairs = [render_conversations(loaded.tokenizer, example) for example in examples]
    order = sorted(range(len(pairs)), key=lambda number: -max(len(row.ids) for row in pairs[number]))
    scores = [(0.0, 0.0)] * len(pairs)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        sums = [sum_logprobs(loaded, [pairs[number][answer] for number in batch]) for answer in (0, 1)]
        for number, chosen, rejected in zip(batch, *sums, strict=True):
            scores[number] = (chosen, rejected)
        if on_rows:
            on_rows(len(batch))
    return scores


def sum_logprobs(loaded: LoadedModel, rows: Sequence[Rendering]) -> list[float]:
    """The summed log-probability of the supervised tokens of each conversation."""
    return [
        float(logits.float().log_softmax(-1).gather(-1, targets[:, None]).sum())
        for logits, targets in supervised_logits(loaded, rows)
    ]
