"""POST /v1/classify for a model that writes: how likely it is to write each label as the complete answer.

The probabilities are those of `slmtune eval`: the log-probability of a label is the sum over its tokens and the end of the
turn, and the labels of a text share a probability of 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from finetune.errors import InputError, SlmtuneError
from finetune.scoring.label_tasks import LabelTask
from finetune.serve.api.completions import head_of
from finetune.serve.api.facts import facts_of
from finetune.serve.api.known_task import task_of
from finetune.serve.api.problem import ApiError, api_error
from finetune.serve.api.reply import Reply
from finetune.serve.api.schema import ClassifyRequest, Usage
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams

WAVE = 8  # labels of a text that are computed at once, behind a first one that leaves the prompt in the cache
MAX_ANSWERS = 1024  # texts times labels


class OnlyAnswer:
    """Allows nothing but one answer; see `finetune.serve.engine.job.Constraint`."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens, self._place = tokens, 0

    @property
    def complete(self) -> bool:
        """Whether the answer is whole."""
        return self._place == len(self._tokens)

    def allowed(self) -> torch.Tensor:
        """The next token of the answer, as a boolean tensor up to its id."""
        mask = torch.zeros(self._tokens[self._place] + 1, dtype=torch.bool)
        mask[-1] = True
        return mask

    def accept(self, token: int) -> None:
        """Go on to the next token."""
        self._place += 1


async def score_labels(engine: Engine, request: Request, body: ClassifyRequest) -> Response:
    """Label the texts of a request.

    Raises:
        ApiError: the request cannot be served.
    """
    try:
        task = task_of(body, engine.served[body.model])
        if len(task.labels) * len(body.input) > MAX_ANSWERS:
            raise InputError(f"Texts times labels may be at most {MAX_ANSWERS}. Send fewer texts per request")
        if any(second is not None for _, second in body.input):
            raise InputError(
                "A model that writes takes single texts here. Ask about pairs with POST /v1/chat/completions"
            )
        rows = [await _score(engine, request, body.model, task, text) for text, _ in body.input]
    except ApiError:
        raise
    except SlmtuneError as error:
        raise api_error(error, "input") from None
    data = [{"index": number, **_describe(task, logprobs)} for number, (logprobs, _) in enumerate(rows)]
    tokens = sum(count for _, count in rows)
    facts_of(request).summarise(tokens, [str(row["label"]) for row in data])
    usage = Usage(prompt_tokens=tokens, completion_tokens=0, total_tokens=tokens).model_dump(exclude_none=True)
    return JSONResponse({**head_of("classify-", "list", body.model), "data": data, "usage": usage})


async def _score(engine: Engine, request: Request, model: str, task: LabelTask, text: str) -> tuple[list[float], int]:
    """The log-probability of each label as the answer, and the tokens of the prompt."""
    messages = task.ask(text)
    prompt = await run_in_threadpool(engine.encode_chat, messages)
    answers = await run_in_threadpool(engine.encode_answers, messages, task.labels)
    settings = GenerationParams(
        temperature=0, logprobs=0, client=facts_of(request).client, deadline=request.app.state.deadline
    )
    params = [replace(settings, max_tokens=len(one), constraint=OnlyAnswer(one)) for one in answers]
    logprobs: list[float] = []
    for wave in (params[:1], *(params[start : start + WAVE] for start in range(1, len(params), WAVE))):
        reply = Reply(engine, prompt, wave, model, facts_of(request))
        for number, draft in enumerate(await reply.drafts(request)):
            end = reply.results[number].end_logprob or 0.0
            logprobs.append(sum(token.logprob for token in draft.tokens) + end)
    return logprobs, len(prompt)


def _describe(task: LabelTask, logprobs: Sequence[float]) -> dict[str, Any]:
    """The label of a text and the probability of every label, as of an encoder."""
    highest = max(logprobs)
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    shares = {label: round(weight / sum(weights), 6) for label, weight in zip(task.labels, weights, strict=True)}
    return {"label": task.labels[logprobs.index(highest)], "probs": shares, "num_classes": len(shares)}
