"""Finds the phrases of a project's lists, in time that grows with the text and not with the lists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from finetune.scrub.recogniser import CHECKED
from finetune.scrub.span import Span

WORD = re.compile(r"\w+")


class PhraseFinder:
    """The phrases of some lists by their first word; case does not count, nor does what divides the words."""

    def __init__(self, lists: Mapping[str, tuple[str, ...]]) -> None:
        self._phrases: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for kind, phrases in lists.items():
            for phrase in phrases:
                words = tuple(WORD.findall(phrase.casefold()))
                if words:
                    self._phrases.setdefault(words[0], []).append((words, kind))
        for each in self._phrases.values():
            each.sort(key=lambda pair: -len(pair[0]))

    def find(self, text: str) -> Iterator[Span]:
        """The longest phrase at each place."""
        if not self._phrases:
            return
        tokens = [(match[0].casefold(), match.start(), match.end()) for match in WORD.finditer(text)]
        for position, (word, start, _) in enumerate(tokens):
            for words, kind in self._phrases.get(word, ()):
                here = tokens[position : position + len(words)]
                if tuple(each[0] for each in here) == words:
                    yield Span(kind, start, here[-1][2], CHECKED, "list", "a phrase of the project's list")
                    break
