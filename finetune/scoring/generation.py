"""The texts that a model writes: greedy decoding, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from finetune.models.chat_template import render_answer
from finetune.models.load import LoadedModel, greedy_settings
from finetune.records import Example, Message, Task
from finetune.scoring.inputs import RowsCallback, pad_left, sort_batches


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
    for batch in sort_batches(loaded, examples, range(len(examples)), batch_size):
        ids, mask = pad_left(loaded, [prompt for _, prompt in batch])
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
