"""The texts that a model writes: greedy decoding, in batches, after a common beginning that is computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune.models.chat_template import end_of_turn_ids, render_answer
from finetune.models.load import LoadedModel
from finetune.records import Example, Message, Task
from finetune.scoring.inputs import RowsCallback, render_prompts, sort_batches
from finetune.scoring.label_decoding import AllowedTokens, LabelAnswers, label_answers
from finetune.scoring.prefix import Prefix, compute_prefix, pad_behind

GoesOn = Callable[[Sequence[int]], bool]  # of the tokens of an answer so far: whether to go on


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
    prefix = compute_prefix(loaded, prompts, max(map(len, prompts), default=0) + max_new_tokens)
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
    loaded: LoadedModel,
    prompts: Sequence[tuple[int, ...]],
    *,
    batch_size: int,
    max_new_tokens: int,
    draw: torch.Generator | None = None,
    goes_on: Sequence[GoesOn] | None = None,
) -> list[list[int]]:
    """Answers to prompts, both as token ids, up to the end of the turn or `max_new_tokens`.

    They are greedy, or sampled at temperature 1 with `draw`. `goes_on` ends the answer to each prompt earlier.
    """
    prefix = compute_prefix(loaded, prompts, max(map(len, prompts), default=0) + max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    for batch in sort_batches([len(prompt) for prompt in prompts], batch_size):
        rows = [prompts[number] for number in batch]
        wanted = [goes_on[number] for number in batch] if goes_on else None
        with torch.inference_mode():
            tokens = _decode(loaded, rows, [None] * len(rows), prefix, max_new_tokens, draw, wanted)
        for number, answer in zip(batch, tokens, strict=True):
            answers[number] = answer
    return answers


def _decode(
    loaded: LoadedModel,
    prompts: Sequence[tuple[int, ...]],
    grammars: Sequence[LabelAnswers | None],
    prefix: Prefix | None,
    max_new_tokens: int,
    draw: torch.Generator | None = None,
    goes_on: Sequence[GoesOn] | None = None,
) -> list[list[int]]:
    """The tokens of greedy answers, or of sampled ones with `draw`. A row leaves the batch as soon as it has ended."""
    ids, mask, positions = pad_behind(loaded, prefix, prompts)
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
        tokens = _pick(output.logits[:, -1], [allowed[row] for row in active], [answers[row] for row in active], draw)
        for row, token in zip(active, tokens, strict=True):
            answers[row].append(token)
        going = [
            place
            for place, row in enumerate(active)
            if tokens[place] not in ends
            and len(answers[row]) < limits[row]
            and (goes_on is None or goes_on[row](answers[row]))
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


def _pick(
    logits: Tensor,
    allowed: Sequence[AllowedTokens | None],
    answers: Sequence[Sequence[int]],
    draw: torch.Generator | None,
) -> list[int]:
    """The most likely token of each row, or of those that may follow in its answer: (rows, vocabulary) → tokens.

    With `draw`, a token of a row without such limits is sampled instead.
    """
    best = logits.argmax(-1) if draw is None else logits.float().softmax(-1).multinomial(1, generator=draw)[:, 0]
    tokens: list[int] = best.tolist()
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
