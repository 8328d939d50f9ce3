"""The texts that a model writes: greedy decoding, in batches, after a common beginning that is computed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune.models.chat_template import end_of_turn_ids, render_answer
from finetune.models.load import LoadedModel
from finetune.models.structure import base_model, find_state
from finetune.records import Example, Message, Task
from finetune.scoring.inputs import RowsCallback, count_common, pad_left, render_prompts, sort_batches
from finetune.scoring.label_decoding import AllowedTokens, LabelAnswers, label_answers


@dataclass(frozen=True)
class Prefix:
    """The first tokens of all prompts, and the cache of what the model computed for them: that of one row."""

    tokens: tuple[int, ...]
    cache: Any

    def repeat(self, rows: int) -> Any:
        """A cache of its own for as many rows."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache


def generate(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    max_new_tokens: int,
    on_rows: RowsCallback | None = None,
) -> list[str]:
    """Greedy answers, up to the end of the turn or `max_new_tokens`.

    The answer to a row with choices is one of them, or, if the row may have several labels, any number of them or none: the
    most likely token is taken among those that lead to such an answer. No label is cut short, whatever `max_new_tokens` is.
    """
    prompts = render_prompts(loaded, examples)
    grammars = _build_grammars(loaded.tokenizer, examples)
    prefix = _compute_prefix(loaded, prompts, max_new_tokens)
    answers = [""] * len(examples)
    for batch in sort_batches([len(prompt) for prompt in prompts], batch_size):
        rows = [grammars[number] for number in batch]
        with torch.inference_mode():
            tokens = _decode(loaded, [prompts[number] for number in batch], rows, prefix, max_new_tokens)
        texts = loaded.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for number, text in zip(batch, texts, strict=True):
            answers[number] = trim_answer(text, examples[number].task)
        if on_rows:
            on_rows(len(batch))
    return answers


def generate_tokens(
    loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], *, batch_size: int, max_new_tokens: int
) -> list[list[int]]:
    """Greedy answers to prompts, both as token ids, up to the end of the turn or `max_new_tokens`."""
    answers: list[list[int]] = [[] for _ in prompts]
    for batch in sort_batches([len(prompt) for prompt in prompts], batch_size):
        rows = [prompts[number] for number in batch]
        with torch.inference_mode():
            tokens = _decode(loaded, rows, [None] * len(rows), None, max_new_tokens)
        for number, answer in zip(batch, tokens, strict=True):
            answers[number] = answer
    return answers


def _decode(
    loaded: LoadedModel,
    prompts: Sequence[tuple[int, ...]],
    grammars: Sequence[LabelAnswers | None],
    prefix: Prefix | None,
    max_new_tokens: int,
) -> list[list[int]]:
    """The tokens of greedy answers. A row leaves the batch as soon as it has ended."""
    ids, mask, positions = _read(loaded, prompts, len(prefix.tokens) if prefix else 0)
    cache = prefix.repeat(len(prompts)) if prefix else None
    limits = [max(max_new_tokens, grammar.shortest_limit if grammar else 0) for grammar in grammars]
    allowed = [grammar.allow(limit) if grammar else None for grammar, limit in zip(grammars, limits, strict=True)]
    ends = end_of_turn_ids(loaded.tokenizer)
    answers: list[list[int]] = [[] for _ in prompts]
    active = list(range(len(prompts)))  # the rows of the batch
    while True:
        output = loaded.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        tokens = _pick(output.logits[:, -1], [allowed[row] for row in active], [answers[row] for row in active])
        for row, token in zip(active, tokens, strict=True):
            answers[row].append(token)
        going = [
            place for place, row in enumerate(active) if tokens[place] not in ends and len(answers[row]) < limits[row]
        ]
        if not going:
            return answers
        if len(going) < len(active):
            kept = torch.tensor(going, device=ids.device)
            cache.reorder_cache(kept)
            mask, positions = mask[kept], positions[kept]
        active = [active[place] for place in going]
        ids = torch.tensor([[tokens[place]] for place in going], device=ids.device)
        mask, positions = torch.cat([mask, mask.new_ones(len(mask), 1)], 1), positions[:, -1:] + 1


def _read(loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], known: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids after the `known` ones, the attention mask of all, and positions: (prompts, tokens)."""
    ids, mask = pad_left(loaded, [prompt[known:] for prompt in prompts])
    mask = torch.cat([mask.new_ones(len(mask), known), mask], 1)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)[:, known:]


def _pick(logits: Tensor, allowed: Sequence[AllowedTokens | None], answers: Sequence[Sequence[int]]) -> list[int]:
    """The most likely token of each row, or of those that may follow in its answer: (rows, vocabulary) → tokens."""
    tokens: list[int] = logits.argmax(-1).tolist()
    for place, (allow, answer) in enumerate(zip(allowed, answers, strict=True)):
        if allow is not None:
            following = allow(tuple(answer))
            tokens[place] = following[int(logits[place, following].argmax())]
    return tokens


def _build_grammars(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> list[LabelAnswers | None]:
    """What the answer to each row may be, if it has choices; rows with the same choices share it."""
    grammars: dict[tuple[tuple[str, ...], bool], LabelAnswers | None] = {}
    keys = [(example.choices, example.labels is not None) for example in examples]
    for key, example in zip(keys, examples, strict=True):
        if key not in grammars:
            grammars[key] = label_answers(tokenizer, example) if example.choices else None
    return [grammars[key] for key in keys]


def _compute_prefix(loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> Prefix | None:
    """What all prompts begin with, computed once; None if that is little, or the model cannot go on behind it.

    A sliding window counts the padding between the prefix and the rest of a row.
    """
    model = base_model(loaded.model)
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    longest = max(map(len, prompts), default=0) + max_new_tokens
    common = count_common(prompts) if prompts else 0
    if not common or find_state(model) or not model._supports_attention_backend or (window and longest > window):
        return None
    with torch.inference_mode():
        ids = torch.tensor([prompts[0][:common]], device=loaded.model.device)
        output = loaded.model(input_ids=ids, use_cache=True, logits_to_keep=1)
    return Prefix(prompts[0][:common], output.past_key_values)


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
