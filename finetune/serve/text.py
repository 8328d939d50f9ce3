"""From token ids to text, piece by piece: whole characters only, and no beginning of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what decoders print for bytes that are no character, or not yet one
KEPT_TOKENS = 4  # decoded again as left context: some decoders join or strip spaces at a seam
MAX_KEPT_TOKENS = 32  # decoding the whole answer again at each token would be quadratic


class Detokenizer:
    """Turns token ids into text as they come; what is returned never changes afterwards.

    A character whose bytes are spread over tokens is held back until it is whole. The pieces together are the text that
    `decode` makes of all ids at once.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._sent = 0  # characters of decode(self._ids) that were returned

    def push(self, token: int) -> str:
        """The text that `token` completes; may be empty."""
        self._ids.append(token)
        text = self._decode(self._ids)
        # All of them: decoders with byte fallback print a whole run of characters so while its last one lacks a byte.
        whole = len(text.rstrip(REPLACEMENT))
        piece = self._take(text, whole)
        if whole == len(text) and len(self._ids) > MAX_KEPT_TOKENS:
            self._forget()
        return piece

    def finish(self) -> str:
        """What was held back."""
        text = self._decode(self._ids)
        return self._take(text, len(text))

    def _take(self, text: str, end: int) -> str:
        piece = text[self._sent : end]
        self._sent = max(self._sent, end)
        return piece

    def _forget(self) -> None:
        """Drop all ids but the last few, if those decode by themselves."""
        kept = self._ids[-KEPT_TOKENS:]
        text = self._decode(kept)
        if REPLACEMENT not in text:
            self._ids, self._sent = kept, len(text)


class StopStrings:
    """Ends a text before the first stop string, which may be spread over pieces; no part of it gets through."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The part of the text so far that is certainly not in a stop string and was not returned before."""
        text = self._held + piece
        starts = [start for stop in self._stops if (start := text.find(stop)) >= 0]
        if starts:
            self.found = True
            self._held = ""
            return text[: min(starts)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back: the text ended before a stop string was complete."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` with which `stop` begins."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
