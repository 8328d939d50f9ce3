"""Answers to POST /v1/classify: the label of each text, or the part of a context that answers a question."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from finetune.errors import SlmtuneError
from finetune.serve.api.completions import head_of
from finetune.serve.api.facts import facts_of
from finetune.serve.api.problem import ApiError, api_error
from finetune.serve.api.reply import Submission
from finetune.serve.api.schema import ClassifyRequest, Usage
from finetune.serve.engine.classifier import Classification, Classifier, describe


async def classify(classifier: Classifier, request: Request, body: ClassifyRequest) -> Response:
    """Classify the texts of a request with an encoder.

    Raises:
        ApiError: the request cannot be served.
    """
    for name in ("labels", "instruction", "task"):
        if getattr(body, name) is not None:
            raise ApiError(400, f"{name}: an encoder has the labels that it was trained with", param=name)
    try:
        texts = await run_in_threadpool(classifier.encode, body.input)
        reply = Submission(lambda report: classifier.submit(texts, body.model, report))
        result: Classification = await reply.result(request)
    except SlmtuneError as error:
        raise api_error(error, "input") from None
    facts_of(request).add_result("" if result.rows else "cancelled", result.tokens, 0)
    data = [{"index": number, **describe(row, classifier.head)} for number, row in enumerate(result.rows)]
    usage = Usage(prompt_tokens=result.tokens, completion_tokens=0, total_tokens=result.tokens).model_dump(
        exclude_none=True
    )
    return JSONResponse({**head_of("classify-", "list", body.model), "data": data, "usage": usage})
