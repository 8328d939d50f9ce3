"""Finds personal data in texts and replaces it."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache

from finetune.scrub.phrases import PhraseFinder
from finetune.scrub.policy import replace_spans
from finetune.scrub.recogniser import NAMED, Recogniser
from finetune.scrub.recognisers import RECOGNISERS
from finetune.scrub.rules import Rules
from finetune.scrub.span import Span, resolve
from finetune.scrub.tagger import kinds_of, load_tagger
from finetune.scrub.telephones import telephones_in

OTHER_DIGIT = re.compile(r"(?![0-9])\d")


class Scrubber:
    """Finds and replaces personal data as some rules say; it can be sent to other processes."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._formats = tuple(_format(kind, pattern) for kind, pattern in rules.formats.items())
        self._recognisers = tuple(each for each in RECOGNISERS if each.name in rules.recognisers)
        self._without_digits = tuple(each for each in self._recognisers if not each.digits)
        self._groups: dict[re.Pattern[str] | None, list[Recogniser]] = {}
        for each in self._recognisers:
            self._groups.setdefault(each.hint, []).append(each)
        self._finds_telephones = any(each.entity == "PHONE" for each in self._recognisers)
        self._phrases = PhraseFinder(rules.lists)
        signs = [one.signs for one in (*self._formats, *self._without_digits)]
        is_plain = all(signs) and not rules.lists and rules.tagger is None
        # What a text without digits must contain one of for anything to be found; None: that cannot be said.
        self._signs = tuple(sign for some in signs for sign in some) if is_plain else None

    def __reduce__(self) -> tuple[type[Scrubber], tuple[Rules]]:
        """Go to another process as the rules alone."""
        return Scrubber, (self.rules,)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of personal data that are searched for."""
        tagger = self.rules.tagger
        tagged = [] if tagger is None else [each for each in kinds_of(tagger) if each in self.rules.entities]
        patterns = [each.entity for each in (*self._formats, *self._recognisers)]
        return tuple(dict.fromkeys([*patterns, *self.rules.lists, *tagged]))

    def find(self, text: str) -> list[Span]:
        """The spans of personal data in a text, in order and without overlaps."""
        if self._signs is not None and not _has_digit(text) and not any(map(text.lower().__contains__, self._signs)):
            return []
        return self.find_all([text])[0]

    def find_all(self, texts: Sequence[str]) -> list[list[Span]]:
        """The spans of each text; a tagger reads all of them together."""
        found = [[*self._search(text), *self._phrases.find(text)] for text in texts]
        if self.rules.tagger is not None and self.rules.entities:
            for text, spans, tagged in zip(texts, found, load_tagger(self.rules.tagger)(texts), strict=True):
                spans += [span for span in tagged if span.entity in self.rules.entities]
                if self._finds_telephones:
                    spans += [one for span in tagged if span.entity == "ADDRESS" for one in telephones_in(span, text)]
        return [self._resolve(spans, text) if spans else [] for spans, text in zip(found, texts, strict=True)]

    def scrub(self, text: str, counts: Counter[str], document: str = "") -> str:
        """The text with its personal data replaced, which is counted by kind.

        Args:
            document: what surrogates are consistent within: equal values of equal documents get equal surrogates.
        """
        spans = self.find(text)
        if not spans:
            return text
        counts.update(span.entity for span in spans)
        return self.replace(text, spans, document)

    def replace(self, text: str, spans: Sequence[Span], document: str = "") -> str:
        """The text with the spans replaced as the policy says."""
        return replace_spans(text, spans, self.rules.policy, f"{self.rules.seed}:{document}")

    def _search(self, text: str) -> Iterator[Span]:
        for each in self._formats:
            yield from each.find(text)
        text = _with_ascii_digits(text)
        lowered = text.lower()
        for hint, recognisers in self._groups.items() if _has_digit(text) else [(None, self._without_digits)]:
            if hint is None or hint.search(text):
                for each in recognisers:
                    if not each.signs or any(map(lowered.__contains__, each.signs)):
                        yield from each.find(text)

    def _resolve(self, spans: list[Span], text: str) -> list[Span]:
        allow = self.rules.allow
        if allow:
            spans = [span for span in spans if text[span.start : span.end].casefold() not in allow]
        return resolve(spans, text)


def _format(kind: str, pattern: str) -> Recogniser:
    return Recogniser("format", kind, re.compile(pattern), "a format of the project", NAMED, digits=False)


def _has_digit(text: str) -> bool:
    """Whether a pattern with a digit can match; ten searches for a character are faster than one for a class."""
    return any(map(text.__contains__, "0123456789")) or not text.isascii()


@cache
def _tagger_of_identifiers() -> Scrubber:
    return Scrubber(Rules())


def tag_identifiers(text: str) -> str:
    """The text with its identifiers replaced by tags such as `[EMAIL]`, by the rules that hold if nobody sets any."""
    return _tagger_of_identifiers().scrub(text, Counter())


def _with_ascii_digits(text: str) -> str:
    """The text with the decimal digits of every script as ASCII digits, at the same positions."""
    if text.isascii():
        return text
    return OTHER_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
