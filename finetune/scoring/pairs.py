"""The likelihoods of the two answers of a pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from finetune.models.chat_template import Rendering, render_conversations
from finetune.models.load import LoadedModel
from finetune.records import Example
from finetune.scoring.inputs import RowsCallback, pad_left

MOST_LOGITS = 2**26  # in memory at once while answers are scored: 256 MiB in float32


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
    """The summed log-probability of the supervised tokens of each conversation, in passes of at most `MOST_LOGITS`."""
    longest = max(len(row.ids) - row.supervised.index(True, 1) for row in rows)  # the first token is never predicted
    size = max(1, MOST_LOGITS // (longest * loaded.model.get_output_embeddings().weight.shape[0]))
    if len(rows) > size:
        return [
            total for start in range(0, len(rows), size) for total in sum_logprobs(loaded, rows[start : start + size])
        ]
    ids, mask = pad_left(loaded, [list(row.ids) for row in rows])
    with torch.inference_mode():
        output = loaded.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=longest + 1,
        )
    totals = []
    for row, logits in zip(rows, output.logits[:, :-1], strict=True):
        supervised = torch.tensor((False, *row.supervised[1:])[-longest:], device=ids.device)
        targets = torch.tensor(row.ids[-longest:], device=ids.device)[supervised]
        logprobs = logits[-len(supervised) :][supervised].float().log_softmax(-1)
        totals.append(float(logprobs.gather(-1, targets[:, None]).sum()))
    return totals
