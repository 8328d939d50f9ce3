"""The answers of a model: the likelihood of each label for classification, greedy decoding for everything else.

Base and adapter go through the same functions, prompts and batches, so any difference is due to the adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune.models.chat_template import Rendering, render_answer, render_conversations, render_prompt
from finetune.models.load import LoadedModel, greedy_settings
from finetune.models.structure import find_state
from finetune.records import Example, Message, Task

MOST_LOGITS = 2**26  # in memory at once while answers are scored: 256 MiB in float32
RowsCallback = Callable[[int], None]  # called after each batch with the number of finished rows


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
        for batch in _batches(loaded, examples, members, batch_size):
            rows = _score_batch(loaded, [prompt for _, prompt in batch], answers)
            for (number, _), row in zip(batch, rows.tolist(), strict=True):
                scores[number] = row
            if on_rows:
                on_rows(len(batch))
    return scores


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
        sums = [_sum_answers(loaded, [pairs[number][answer] for number in batch]) for answer in (0, 1)]
        for number, chosen, rejected in zip(batch, *sums, strict=True):
            scores[number] = (chosen, rejected)
        if on_rows:
            on_rows(len(batch))
    return scores


def _sum_answers(loaded: LoadedModel, rows: Sequence[Rendering]) -> list[float]:
    """The summed log-probability of the supervised tokens of each conversation, in passes of at most `MOST_LOGITS`."""
    longest = max(len(row.ids) - row.supervised.index(True, 1) for row in rows)  # the first token is never predicted
    size = max(1, MOST_LOGITS // (longest * loaded.model.get_output_embeddings().weight.shape[0]))
    if len(rows) > size:
        return [
            total for start in range(0, len(rows), size) for total in _sum_answers(loaded, rows[start : start + size])
        ]
    ids, mask = _left_pad(loaded, [list(row.ids) for row in rows])
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


def generate(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_rows: RowsCallback | None = None,
) -> list[str]:
    """Greedy answers, up to the end of the turn or `max_new_tokens`."""
    settings = greedy_settings(loaded.tokenizer, max_new_tokens)
    answers = [""] * len(examples)
    for batch in _batches(loaded, examples, range(len(examples)), batch_size):
        ids, mask = _left_pad(loaded, [prompt for _, prompt in batch])
        with torch.inference_mode():
            output = loaded.model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)
        texts = loaded.tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
        for (number, _), text in zip(batch, texts, strict=True):
            answers[number] = trim_answer(text, examples[number].task)
        if on_rows:
            on_rows(len(batch))
    return answers


def trim_answer(text: str, task: Task) -> str:
    """An answer without the blanks around it; the first line of code keeps its indentation."""
    return text.strip("\n").rstrip() if task == "code" else text.strip()


def spell_calls(tokenizer: PreTrainedTokenizerBase, example: Example) -> Example:
    """The row with the tool calls of its answer as text, as the chat template writes them; a pair is not generated."""
    *prompt, answer = example.messages
    if not answer.tool_calls or example.rejected:
        return example
    ids = render_answer(tokenizer, prompt, answer, example.tools)
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    return replace(example, messages=(*prompt, Message("assistant", text.strip())))


def _batches(
    loaded: LoadedModel, examples: Sequence[Example], members: Sequence[int], size: int
) -> Iterator[list[tuple[int, list[int]]]]:
    """Rows with the ids of their prompts, longest first: batches need little padding, and memory peaks at the start."""
    prompts = [(n, render_prompt(loaded.tokenizer, examples[n].prompt, examples[n].tools)) for n in members]
    prompts.sort(key=lambda item: (-len(item[1]), item[0]))
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]


def _score_batch(loaded: LoadedModel, prompts: list[list[int]], answers: list[list[int]]) -> Tensor:
    """Log-probabilities of `answers` after each of `prompts`: (prompts, answers), in nats."""
    ids, mask = _left_pad(loaded, prompts)
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


def _left_pad(loaded: LoadedModel, prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (prompts, tokens), padded on the left so that all prompts end together."""
    width = max(len(prompt) for prompt in prompts)
    pad = loaded.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(loaded.model.device), mask.to(loaded.model.device)
