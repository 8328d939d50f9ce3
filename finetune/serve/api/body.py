"""Reads the body of a request: JSON only, with limits on size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from finetune.serve.api.problem import ApiError

MAX_BODY = 1 << 20  # bytes
# A body that is too large is read up to here before it is refused: clients still sending would miss the refusal.
MAX_DISCARDED = 16 << 20
BODY_SECONDS = 30.0


async def read_body(request: Request) -> bytes:
    """The body of a request.

    Raises:
        ApiError: 400 the content type is not JSON; 408 too slow; 413 too large.
        ClientDisconnect: the client disconnected.
    """
    # Browsers send other types across sites without asking, so this also keeps web pages from using a local server.
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _read(request)
    except TimeoutError:
        message = f"The body did not arrive within {BODY_SECONDS:.0f} seconds"
        raise ApiError(408, message, headers={"Connection": "close"}) from None
    if content_type != "application/json":
        raise ApiError(400, "Content-Type must be application/json")
    return body


async def _read(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_DISCARDED:
            break
        if size <= MAX_BODY:
            chunks.append(chunk)
    if size > MAX_BODY:
        message = f"The body is larger than {MAX_BODY} bytes"
        raise ApiError(413, message, code="body_too_large", headers={"Connection": "close"})
    return b"".join(chunks)
