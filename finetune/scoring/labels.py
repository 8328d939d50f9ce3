"""The likelihood of each label as the answer to a row.

Base and adapter go through the same functions, prompts and batches, so any difference is due to the adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from finetune.models.chat_template import render_answer
from finetune.models.load import LoadedModel
from finetune.models.structure import find_state
from finetune.records import Example
from finetune.scoring.inputs import RowsCallback, pad_left, sort_batches


def label_logprobs(
    loaded: LoadedModel, examples: Sequence[Example], *, batch_size: int, on_rows: RowsCallback | None = None
) -> list[list[float]]:
    """Log-probability, in nats, of each of a row's `choices` as the complete answer.

    The probability of an answer is the product over its tokens, including the end-of-turn token, so a label that is a
    prefix of another one is distinct from it. A prompt is computed once for all of its choices.
    """
    scores: list[list[float]] = [[] for _ in examples]
    for choices in dict.fromkeys(example.choices for example in examples):
        members = [number for number, example in enumerate(examples) if example.choices == choices]
        first = examples[members[0]]
        answers = [render_answer(loaded.tokenizer, first.prompt, choice, first.tools) for choice in choices]
        for batch in sort_batches(loaded, examples, members, batch_size):
            rows = _score_batch(loaded, [prompt for _, prompt in batch], answers)
            for (number, _), row in zip(batch, rows.tolist(), strict=True):
                scores[number] = row
            if on_rows:
                on_rows(len(batch))
    return scores


def _score_batch(loaded: LoadedModel, prompts: list[list[int]], answers: list[list[int]]) -> Tensor:
    """Log-probabilities of `answers` after each of `prompts`: (prompts, answers), in nats."""
    ids, mask = pad_left(loaded, prompts)
    longest = max(len(answer) for answer in answers)
    with torch.inference_mode():
        if find_state(loaded.model):
            return _score_whole(loaded, ids, mask, answers, longest).cpu()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        first = loaded.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        logprobs = first.logits[:, -1].float().log_softmax(-1)
        scores = logprobs[:, [answer[0] for answer in answers]]
        if longest > 1:
            scores = scores + _score_rest(loaded, first.past_key_values, mask, answers, longest)
    result: Tensor = scores.cpu()
    return result


def _score_rest(loaded: LoadedModel, cache: Any, mask: Tensor, answers: list[list[int]], longest: int) -> Tensor:
    """Log-probabilities of each answer's second and later tokens, given the cached prompts: (prompts, answers)."""
    rows = mask.shape[0]
    inputs, targets, real = _pad_answers(loaded, answers, longest)
    cache.batch_repeat_interleave(len(answers))
    whole_mask = torch.cat([mask.repeat_interleave(len(answers), 0), real[:, 1:].repeat(rows, 1)], dim=1)
    lengths = mask.sum(-1).repeat_interleave(len(answers), 0)
    positions = lengths[:, None] + torch.arange(longest - 1, device=mask.device)
    output = loaded.model(
        input_ids=inputs.repeat(rows, 1),
        attention_mask=whole_mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return _sum_logprobs(output.logits, targets[:, 1:], real[:, 1:], rows)


def _score_whole(loaded: LoadedModel, ids: Tensor, mask: Tensor, answers: list[list[int]], longest: int) -> Tensor:
    """Log-probabilities of `answers`, each with its prompt in one pass and without a cache: (prompts, answers)."""
    inputs, targets, real = _pad_answers(loaded, answers, longest)
    whole = torch.cat([ids.repeat_interleave(len(answers), 0), inputs.repeat(len(ids), 1)], dim=1)
    seen = torch.cat([mask.repeat_interleave(len(answers), 0), real[:, 1:].repeat(len(ids), 1)], dim=1)
    output = loaded.model(
        input_ids=whole,
        attention_mask=seen,
        position_ids=(seen.cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=longest,
    )
    return _sum_logprobs(output.logits, targets, real, len(ids))


def _pad_answers(loaded: LoadedModel, answers: list[list[int]], longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the model reads (all but the last token), what it predicts, and which of that is not padding: (answers, tokens)."""
    pad, device = loaded.tokenizer.pad_token_id, loaded.model.device
    targets = torch.tensor([answer + [pad] * (longest - len(answer)) for answer in answers], device=device)
    real = torch.tensor([[1] * len(answer) + [0] * (longest - len(answer)) for answer in answers], device=device)
    return targets[:, :-1], targets, real


def _sum_logprobs(logits: Tensor, targets: Tensor, real: Tensor, rows: int) -> Tensor:
    """Log-probabilities of the answers from the logits at their tokens: (prompts, answers)."""
    logprobs = logits.float().log_softmax(-1)
    picked = logprobs.gather(-1, targets.repeat(rows, 1)[..., None])[..., 0] * real.repeat(rows, 1)
    return picked.sum(-1).view(rows, -1)
