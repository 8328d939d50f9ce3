"""How much each client may ask of a server: requests per minute, and requests at once."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from finetune.serve.api.problem import RETRY_AFTER, ApiError


class Limits:
    """Admits the requests of clients within their limits; None is no limit. Used on the event loop only.

    After a pause a client may send the requests of a whole minute at once; then the allowance refills evenly.
    """

    def __init__(
        self, per_minute: int | None, at_once: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_minute, self._at_once, self._clock = per_minute, at_once, clock
        self._left: dict[str, tuple[float, float]] = {}  # requests that a client may still send, and as of when
        self._running: Counter[str] = Counter()

    @contextmanager
    def admit(self, client: str) -> Iterator[None]:
        """Count a request of a client as running while the block runs.

        Raises:
            ApiError: 429; the client has used up its requests, or has too many at once.
        """
        if self._at_once is not None and self._running[client] >= self._at_once:
            raise _refusal(f"{self._at_once} requests at once", RETRY_AFTER)
        if self._per_minute is not None:
            self._spend(client, self._per_minute)
        self._running[client] += 1
        try:
            yield
        finally:
            self._running[client] -= 1

    def _spend(self, client: str, per_minute: int) -> None:
        now = self._clock()
        left, since = self._left.get(client, (per_minute, now))
        left = min(per_minute, left + (now - since) * per_minute / 60)
        if left < 1:
            seconds = math.ceil((1 - left) * 60 / per_minute)
            raise _refusal(f"{per_minute} requests per minute", str(seconds))
        self._left[client] = (left - 1, now)


def _refusal(limit: str, seconds: str) -> ApiError:
    message = f"The limit of {limit} per key is reached. Try again in {seconds} s"
    return ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": seconds})
