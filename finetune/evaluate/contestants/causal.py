"""The answers of a causal language model: the most likely choice, the likelier answer of a pair, or a text."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from finetune.errors import InputError
from finetune.evaluate.answers import Answers, pick_answers, pick_labels, read_texts
from finetune.evaluate.contestants.contestant import RowsCallback
from finetune.evaluate.forgetting.ask import ask_probe
from finetune.models.chat_template import render_answer, render_conversations, render_prompt, unrendered_parts
from finetune.models.load import LoadedModel
from finetune.models.structure import has_adapter
from finetune.records import Example
from finetune.scoring.generation import generate
from finetune.scoring.labels import score_labels
from finetune.scoring.pairs import pair_logprobs
from finetune.scoring.tasks import EvalTask


def refuse_model(tokenizer: PreTrainedTokenizerBase, task: EvalTask, context: int, max_new_tokens: int) -> str | None:
    """Why a causal language model cannot answer a task: its template or its context does not take the rows."""
    if task.metric == "weighted_f1" and not all(row.choices for row in task.examples):
        return "its rows have no choices to choose from"
    if any(row.uses_tools and unrendered_parts(tokenizer, row) for row in task.examples):
        return "its chat template leaves out what the rows have of tools"
    try:
        longest = max(count_tokens(tokenizer, task, row, max_new_tokens) for row in task.examples)
    except InputError as error:
        return str(error)
    return f"its context has {context} tokens, and the longest row {longest}" if longest > context else None


def count_tokens(tokenizer: PreTrainedTokenizerBase, task: EvalTask, row: Example, max_new_tokens: int) -> int:
    """Tokens of a row with the longest answer that may follow its prompt."""
    if task.metric == "preference_accuracy":
        return max(len(rendering.ids) for rendering in render_conversations(tokenizer, row))
    prompt = len(render_prompt(tokenizer, row.prompt, row.tools))
    if task.metric != "weighted_f1":
        return prompt + max_new_tokens
    return prompt + len(render_answer(tokenizer, row.prompt, max(row.choices, key=len), row.tools))


def ask_model(
    loaded: LoadedModel, task: EvalTask, *, batch_size: int, max_new_tokens: int, on_rows: RowsCallback
) -> Answers:
    """The model's answers, with its adapter if that is enabled."""
    if task.is_probe:
        return ask_probe(loaded, task, batch_size=batch_size, on_rows=on_rows)
    if task.metric == "weighted_f1":
        rows = score_labels(loaded, task.examples, batch_size=batch_size, on_rows=on_rows)
        return pick_labels(task, rows, tuned=has_adapter(loaded.model))
    if task.metric == "preference_accuracy":
        pairs = pair_logprobs(loaded, task.examples, batch_size=batch_size, on_rows=on_rows)
        return pick_answers(task, pairs)
    texts = generate(loaded, task.examples, batch_size=batch_size, max_new_tokens=max_new_tokens, on_rows=on_rows)
    return read_texts(task, texts)
