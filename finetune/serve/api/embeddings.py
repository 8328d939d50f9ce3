"""Answers to POST /v1/embeddings: a vector for each text, from an encoder."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from finetune.errors import SlmtuneError
from finetune.serve.api.facts import facts_of
from finetune.serve.api.problem import api_error
from finetune.serve.api.reply import Submission
from finetune.serve.api.request_fields import RequestPart
from finetune.serve.api.schema import MAX_NAME, MAX_TEXTS
from finetune.serve.engine.classifier import Classifier, Embeddings

Text = Annotated[str, Field(min_length=1)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class EmbeddingsRequest(RequestPart):
    """Body of POST /v1/embeddings: a text or a list of texts."""

    model: str = Field(min_length=1, max_length=MAX_NAME)
    input: Annotated[list[Text], BeforeValidator(_as_list, json_schema_input_type=Text | list[Text])] = Field(
        min_length=1, max_length=MAX_TEXTS
    )
    encoding_format: Literal["float", "base64"] = "float"


async def embed_texts(classifier: Classifier, request: Request, body: EmbeddingsRequest) -> Response:
    """Embed the texts of a request.

    Raises:
        ApiError: the request cannot be served.
    """
    pairs = [(text, None) for text in body.input]
    try:
        texts = await run_in_threadpool(classifier.encode, pairs, needs_contexts=False)
        reply = Submission(lambda report: classifier.submit_for_embedding(texts, body.model, report))
        result: Embeddings = await reply.result(request)
    except SlmtuneError as error:
        raise api_error(error, "input") from None
    facts_of(request).add_result("" if result.rows else "cancelled", result.tokens, 0)
    data = [
        {"object": "embedding", "index": number, "embedding": _write(row, body.encoding_format)}
        for number, row in enumerate(result.rows)
    ]
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    return JSONResponse({"object": "list", "model": body.model, "data": data, "usage": usage})


def _write(row: Sequence[float], form: Literal["float", "base64"]) -> list[float] | str:
    """A vector as numbers or as the bytes of little-endian 32-bit floats, as the official client asks for."""
    return list(row) if form == "float" else base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
