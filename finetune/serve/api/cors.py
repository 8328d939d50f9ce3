"""Lets web pages of other origins use a server, and refuses the others in the form of the API."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from finetune.serve.api.problem import ApiError


class Cors(CORSMiddleware):
    """Answers what browsers ask before a request of a page, and lets pages read the answers."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The permission to send a request, or a refusal that says what is not allowed."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        origin, method = (request_headers[name] for name in ("origin", "access-control-request-method"))
        problem = f"method {method}" if self.is_allowed_origin(origin=origin) else f"origin {origin}"
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return ApiError(
            400, f"Pages may not use this server with the {problem}; see --cors-origin", code="cors", headers=kept
        ).response()
