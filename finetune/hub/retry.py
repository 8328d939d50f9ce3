"""Retries for the Hub's client: requests that change nothing are repeated until a busy Hub answers.

huggingface_hub 2.4 itself repeats uploads and most HEAD requests, but no other look-ups, no downloads that get a 503, and
no card checks. Requests that change a repository are not repeated here: the caller must first check whether they worked.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import httpx2
from huggingface_hub import set_client_factory
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils._http import hf_request_event_hook  # what the client's own factory installs

WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before the second, third, ... try
WAITS_FOR_CONNECTION = WAITS[:1]  # to a Hub that has answered before
LONGEST_WAIT = 300.0  # seconds; the window of the Hub's rate limits
CONNECT_TIMEOUT = 5.0  # seconds; a request may ask for less
TIMEOUT = httpx2.Timeout(300.0, connect=CONNECT_TIMEOUT)  # seconds; by default, the client waits for ever
NOT_CONNECTED = (httpx2.ConnectError, httpx2.ConnectTimeout)
TRANSIENT = {408, 429, 500, 502, 503, 504}

log = logging.getLogger(__name__)

_answering: set[bytes] = set()  # hosts that have answered in this process
_silent: dict[bytes, str] = {}  # hosts that no connection could be made to, and why


class UnreachableError(OfflineModeIsEnabled):
    """There was no connection to the Hub when it was first needed, so it is not asked again in this process."""


class RetryingClient(httpx2.Client):
    """An HTTP client that repeats requests after transient failures, if repeating them is harmless."""

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request and return its last response, or raise the last error if there is none.

        Raises:
            UnreachableError: the host has never answered; huggingface_hub then uses its cache, without waiting.
        """
        host = request.url.netloc
        if host in _silent:
            raise UnreachableError(_silent[host])
        limits = request.extensions.get("timeout", {})
        connect = min(limits.get("connect") or CONNECT_TIMEOUT, CONNECT_TIMEOUT)
        request.extensions = {**request.extensions, "timeout": {**limits, "connect": connect}}
        try:
            response = self._send(request, **options) if _is_harmless(request) else super().send(request, **options)
        except NOT_CONNECTED as error:
            if host in _answering:
                raise
            _silent[host] = type(error).__name__
            log.info("The Hub cannot be reached (%s), so it is not asked again.", _silent[host])
            raise UnreachableError(_silent[host]) from error
        _answering.add(host)
        return response

    def _send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        for wait in WAITS:
            try:
                response = super().send(request, **options)
            except httpx2.TransportError as error:
                waits = WAITS_FOR_CONNECTION if request.url.netloc in _answering else ()
                if isinstance(error, NOT_CONNECTED) and wait not in waits:
                    raise
                delay, problem = wait, type(error).__name__
            else:
                delay, problem = max(wait, requested_wait(response)), f"status {response.status_code}"
                if not _may_pass(request, response) or delay > LONGEST_WAIT:
                    return response
                response.close()
            pause(delay, problem)
        return super().send(request, **options)


@cache
def install_retry() -> None:
    """Make huggingface_hub use `RetryingClient` from now on in this process."""
    hooks = {"request": [hf_request_event_hook]}
    set_client_factory(lambda: RetryingClient(event_hooks=hooks, follow_redirects=True, timeout=TIMEOUT))


def pause(seconds: float, problem: str) -> None:
    """Log the reason and wait."""
    log.info("Hub: %s. Trying again in %.0f s.", problem, seconds)
    time.sleep(seconds)


def requested_wait(response: httpx2.Response) -> float:
    """Seconds to wait as the Hub requests: `Retry-After` as a number or date, or the end of the rate-limit window."""
    headers: Mapping[str, str] = response.headers
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    if value:
        try:
            return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
        except (TypeError, ValueError):
            return 0.0
    window = re.search(r"\bt=(\d+)", headers.get("RateLimit", "")) if response.status_code == 429 else None
    return float(window[1]) if window else 0.0


def _is_harmless(request: httpx2.Request) -> bool:
    """Whether a request only reads. HEAD requests are left to huggingface_hub, which checks its cache first."""
    return request.method == "GET" or request.url.path.endswith("/api/validate-yaml")


def _may_pass(request: httpx2.Request, response: httpx2.Response) -> bool:
    if "/resolve/" in request.url.path and response.status_code in {408, 429}:
        return False  # huggingface_hub repeats these itself; doing both would take too long
    return response.status_code in TRANSIENT
