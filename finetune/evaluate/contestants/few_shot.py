"""The base model with examples in its prompt: did it need tuning, or only to be shown a few answers?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from finetune.errors import InputError
from finetune.models.chat_template import render_messages, render_prompt
from finetune.records import Example, Message
from finetune.scoring.tasks import EvalTask, hash_id


@dataclass(frozen=True)
class Budget:
    """How many tokens a row may have with its examples, as in training, and how many the model's context has room for.

    If not even one example fits into a row of the training, the context is the limit. `answer` is kept free in it for a
    generated answer.
    """

    max_length: int
    context: int
    answer: int


@dataclass(frozen=True)
class FewShotTask:
    """A task whose prompts begin with the same examples, `shots` of them; if there are none, `reason` says why."""

    task: EvalTask
    shots: int
    reason: str | None = None


def add_examples(
    tokenizer: PreTrainedTokenizerBase, task: EvalTask, training: Sequence[Example], count: int, budget: Budget
) -> FewShotTask:
    """Put up to `count` training rows like those of the task before each of its questions: as many as the longest has room for.

    They are turns of the conversation, after its system message, and the same ones for every row.
    """
    chosen = choose_examples(task, training, count)
    if not chosen:
        return FewShotTask(task, 0, "the training split has no rows like its own")
    try:
        longest = max(task.examples, key=lambda row: len(render_prompt(tokenizer, row.prompt, row.tools)))
        limits = (budget.max_length, budget.context)
        sizes = ((limit, n) for limit in limits for n in range(len(chosen), 0, -1))
        shots = next(
            (n for limit, n in sizes if _fits(tokenizer, longest, chosen[:n], replace(budget, max_length=limit))), 0
        )
    except InputError as error:
        return FewShotTask(task, 0, str(error))
    if not shots:
        reason = f"its longest row leaves no room for an example in the {budget.context} tokens of the context"
        return FewShotTask(task, 0, reason)
    rows = tuple(_extend(row, chosen[:shots]) for row in task.examples)
    return FewShotTask(replace(task, examples=rows), shots)


def choose_examples(task: EvalTask, training: Sequence[Example], count: int) -> list[Example]:
    """Training rows of the same source and form as those of the task, spread over its labels as evenly as possible.

    The order of hashes of their ids decides, so the choice is always the same.
    """
    first, evaluated = task.examples[0], {row.id for row in task.examples}
    alike = [
        row
        for row in training
        if (row.source, row.task, *_form(row)) == (first.source, first.task, *_form(first))
        and row.id not in evaluated
        and not row.uses_tools
    ]
    by_label: dict[object, list[Example]] = {}
    for row in sorted(alike, key=lambda row: hash_id(row.id)):
        by_label.setdefault(row.labels if row.label is None else row.label, []).append(row)
    rounds = range(max(map(len, by_label.values()), default=0))
    return [rows[n] for n in rounds for rows in by_label.values() if n < len(rows)][:count]


def _form(row: Example) -> tuple[bool, bool, bool]:
    return bool(row.choices), row.labels is None, bool(row.rejected)


def _fits(tokenizer: PreTrainedTokenizerBase, longest: Example, examples: Sequence[Example], budget: Budget) -> bool:
    row = _extend(longest, examples)
    prompt = len(render_prompt(tokenizer, row.prompt, row.tools))
    whole = len(render_messages(tokenizer, row.messages, row.tools).ids)
    return whole <= min(budget.max_length, budget.context) and prompt + budget.answer <= budget.context


def _extend(row: Example, examples: Sequence[Example]) -> Example:
    """The row with examples after its system message, whose own system messages are the same."""
    turns = [turn for example in examples for turn in example.messages if turn.role != "system"]

    def extend(messages: tuple[Message, ...]) -> tuple[Message, ...]:
        start = next((number for number, turn in enumerate(messages) if turn.role != "system"), 0)
        return (*messages[:start], *turns, *messages[start:])

    return replace(row, messages=extend(row.messages), rejected=extend(row.rejected) if row.rejected else ())
