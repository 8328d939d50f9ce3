"""Answers to POST /v1/classify: the label of each text, or the part of a context that answers a question."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from finetune.errors import SlmtuneError
from finetune.serve.classifier import Classifier, describe
from finetune.serve.completions import head_of
from finetune.serve.problem import ApiError, api_error
from finetune.serve.reply import ClassificationReply
from finetune.serve.schema import ClassifyRequest, Usage


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
        result = await ClassificationReply(classifier, texts, body.model).result(request)
    except SlmtuneError as error:
        raise api_error(error, "input") from None
    data = [{"index": number, **describe(row, classifier.head)} for number, row in enumerate(result.rows)]
    usage = Usage(prompt_tokens=result.tokens, completion_tokens=0, total_tokens=result.tokens).model_dump()
    return JSONResponse({**head_of("classify-", "list", body.model), "data": data, "usage": usage})
