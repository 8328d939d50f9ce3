"""Turns token ids into text, piece by piece: only whole characters, and never part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what decoders print for bytes that are not, or not yet, a character
KEPT_TOKENS = 4  # decoded again as context: some decoders join or strip spaces at boundaries
MAX_KEPT_TOKENS = 32  # decoding the whole answer again for each token would take quadratic time


class Detokenizer:
    """Turns token ids into text as they arrive; returned text never changes afterwards.

    A character whose bytes are spread over several tokens is held back until it is complete. The pieces together equal
    the text that `decode` returns for all ids at once.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._sent = 0  # characters of decode(self._ids) that were returned

    def push(self, token: int) -> str:
        """The text that `token` completes, possibly empty."""
        self._ids.append(token)
        text = self._decode(self._ids)
        # All of them: decoders with byte fallback print a whole run of characters this way until its last byte arrives.
        whole = len(text.rstrip(REPLACEMENT))
        piece = self._take(text, whole)
        if whole == len(text) and len(self._ids) > MAX_KEPT_TOKENS:
            self._forget()
        return piece

    def finish(self) -> str:
        """The text that was held back."""
        text = self._decode(self._ids)
        return self._take(text, len(text))

    def _take(self, text: str, end: int) -> str:
        piece = text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece

    def _forget(self) -> None:
        """Drop all but the last few ids, if these decode on their own."""
        last = self._ids[-KEPT_TOKENS:]
        text = self._decode(last)
        if REPLACEMENT not in text:
            self._ids, self._sent = last, len(text)


class StopStrings:
    """Ends a text before the first stop string, which may be spread over several pieces and is never returned."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._rest = ""  # may be the beginning of a stop string
        self.is_complete = False  # whether a stop string has occurred

    def push(self, piece: str) -> str:
        """The part of the text that cannot belong to a stop string and has not been returned yet."""
        text = self._rest + piece
        starts = [start for stop in self._stops if (start := text.find(stop)) >= 0]
        if starts:
            self.is_complete = True
            self._rest = ""
            return text[: min(starts)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._rest = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The text that was held back, because it ended before a stop string was complete."""
        rest, self._rest = self._rest, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """The length of the longest suffix of `text` that is a prefix of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
