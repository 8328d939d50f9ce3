"""The answers of a causal language model to the probe: the likelier answer, a text, or how likely a passage is."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.errors import InputError
from finetune.evaluate.answers import Answers
from finetune.evaluate.forgetting.probe import REFUSALS, task_name
from finetune.models.chat_template import Rendering, render, render_answer, render_prompt
from finetune.models.load import LoadedModel
from finetune.records import Example
from finetune.scoring.generation import generate
from finetune.scoring.inputs import RowsCallback
from finetune.scoring.labels import score_labels
from finetune.scoring.pairs import sum_logprobs
from finetune.scoring.tasks import EvalTask

ANSWER_TOKENS = 32  # of an answer to an instruction: all of them ask for something short


def ask_probe(loaded: LoadedModel, task: EvalTask, *, batch_size: int, on_rows: RowsCallback) -> Answers:
    """The answers to one category. Those of passages are their log-probabilities, in nats, beside their numbers of tokens.

    Of refusals, the log-probabilities of whole sentences are compared as means over their tokens, so that the longer one is
    not at a disadvantage; of short answers, as sums.

    Raises:
        InputError: the context of the model is too short.
    """
    rows = task.examples
    if rows[0].task == "text":
        return _measure_passages(loaded, rows, batch_size, on_rows)
    _require_context(loaded, max(_count_tokens(loaded, row) for row in rows))
    if rows[0].choices:
        scored = score_labels(loaded, rows, batch_size=batch_size, on_rows=on_rows, with_priors=False)
        scores = [one.scores("normalized" if task.name == task_name(REFUSALS) else "raw") for one in scored]
        return Answers([row.choices[each.index(max(each))] for row, each in zip(rows, scores, strict=True)])
    return Answers(generate(loaded, rows, batch_size=batch_size, max_new_tokens=ANSWER_TOKENS, on_rows=on_rows))


def _measure_passages(loaded: LoadedModel, rows: Sequence[Example], batch_size: int, on_rows: RowsCallback) -> Answers:
    passages = [_drop_end(render(loaded.tokenizer, row)) for row in rows]
    _require_context(loaded, max(len(passage.ids) for passage in passages))
    logprobs: list[tuple[float, float]] = []
    for start in range(0, len(passages), batch_size):
        batch = passages[start : start + batch_size]
        counts = [float(sum(passage.supervised[1:])) for passage in batch]  # the first token is never predicted
        logprobs += zip(sum_logprobs(loaded, batch), counts, strict=True)
        on_rows(len(batch))
    return Answers([""] * len(rows), logprobs=logprobs)


def _drop_end(passage: Rendering) -> Rendering:
    """A text without the token for its end: whether the model would have gone on does not matter."""
    return Rendering(passage.ids[:-1], passage.supervised[:-1])


def _count_tokens(loaded: LoadedModel, row: Example) -> int:
    """The tokens of a prompt with its longest answer."""
    answers = [len(render_answer(loaded.tokenizer, row.prompt, choice)) for choice in row.choices]
    return len(render_prompt(loaded.tokenizer, row.prompt)) + max(answers, default=ANSWER_TOKENS)


def _require_context(loaded: LoadedModel, tokens: int) -> None:
    if tokens > loaded.context:
        raise InputError(
            f"The probe for forgetting needs a context of {tokens} tokens, and that of the model has {loaded.context}. Leave "
            "the probe out with --no-forgetting"
        )
