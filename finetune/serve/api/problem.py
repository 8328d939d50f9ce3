"""Failed requests: one exception, and one body in the format of the OpenAI API for every status."""

from __future__ import annotations

from starlette.responses import JSONResponse

from finetune.errors import (
    AdapterMemoryError,
    CheckFailedError,
    ContextLengthError,
    DeadlineError,
    EngineStoppedError,
    InputError,
    QueueFullError,
    SlmtuneError,
)

RETRY_AFTER = "1"  # seconds; clients of the API back off by themselves

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that fails with `status`; `param` names the field at fault, `code` the kind of problem."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, dict[str, str | None]]:
        """`{"error": …}` as clients of the API expect it."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The complete HTTP response."""
        return JSONResponse(self.body(), self.status, self.headers)


def api_error(error: SlmtuneError, param: str | None = None) -> ApiError:
    """The response to a request that the engine could not serve; `param` names the field of the prompt."""
    retry = {"Retry-After": RETRY_AFTER}
    if isinstance(error, QueueFullError):
        return ApiError(429, str(error), code="queue_full", headers=retry)
    if isinstance(error, EngineStoppedError):
        return ApiError(503, str(error), code="unavailable", headers=retry)
    if isinstance(error, DeadlineError):
        return ApiError(504, str(error), code="deadline_exceeded")
    if isinstance(error, AdapterMemoryError):
        return ApiError(409, str(error), param="model", code="adapter_memory", headers=retry)
    if isinstance(error, ContextLengthError):
        return ApiError(400, str(error), param=param, code="context_length_exceeded")
    if isinstance(error, InputError | CheckFailedError):
        return ApiError(400, str(error), param=param)
    return ApiError(500, str(error))
