"""What an adapter writes that stands in its training rows: asked to go on with an answer, for a secret, or for nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from finetune.audit.request import AuditRequest, Extraction, Leak, Samples
from finetune.audit.rows import AuditRows, PlacedCanary, Row
from finetune.audit.scores import Scored
from finetune.models.chat_template import render_prompt
from finetune.models.load import LoadedModel
from finetune.records import Example, Message
from finetune.scoring.generation import GoesOn, generate_tokens
from finetune.scoring.texts import reachable_similarity, token_similarity
from finetune.scrub import Rules, Scrubber

FEWEST_TOKENS = 10  # of the rest of an answer: shorter ones are repeated by chance
NEAR = 0.9  # token edit similarity from which a continuation repeats an answer, as in Ippolito et al. 2023 for 10 % of edits
COPIED_WORDS = 13  # in a row: the length of the overlaps of Brown et al. 2020, GPT-3, appendix C
WRITTEN_AT_ONCE = 128  # rows per forward pass: each pass unpacks the 4-bit weights anew, however few rows it has
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Continuation:
    """An answer that the adapter was asked to go on with: what it read, what follows in the row, and what it wrote.

    `is_base_verbatim`: the base would write exactly what follows, as each of its tokens is the base's first choice.
    """

    row: Row
    prompt: tuple[int, ...]
    expected: tuple[int, ...]
    written: tuple[int, ...]
    is_base_verbatim: bool

    @property
    def is_verbatim(self) -> bool:
        """Whether the adapter wrote exactly what follows."""
        return self.written == self.expected

    @property
    def is_near(self) -> bool:
        """Whether it wrote nearly that."""
        return token_similarity(self.expected, self.written) >= NEAR


class Writer:
    """Lets an adapter write, and its base."""

    def __init__(self, loaded: LoadedModel, request: AuditRequest) -> None:
        self.loaded, self._request = loaded, request

    def continue_answers(self, rows: Sequence[Row], scored: Sequence[Scored], *, whole: bool) -> list[Continuation]:
        """Go on with the first half of answers that are long enough, greedily.

        Unless they are to be `whole`, continuations end where they can no longer come near the answer.
        """
        limit = self._request.max_new_tokens
        halves: list[Continuation] = []
        for row, (_, base) in zip(rows, scored, strict=True):
            start, end = row.answer
            middle = (start + end) // 2
            fits = end - middle >= FEWEST_TOKENS and middle + limit <= self.loaded.context
            if fits and len(halves) < self._request.extractions:
                rest = row.rendering.ids[middle : min(end, middle + limit)]
                errs = base.wrong[len(base.wrong) - (end - middle) :][: len(rest)].any()
                halves.append(Continuation(row, row.rendering.ids[:middle], rest, (), not errs))
        goes_on = [_goes_on(each.expected, whole=whole) for each in halves]
        written = self._write([each.prompt for each in halves], limit, goes_on=goes_on)
        return [replace(each, written=tuple(tokens)) for each, tokens in zip(halves, written, strict=True)]

    def tell_secrets(self, placed: Sequence[PlacedCanary]) -> list[bool]:
        """Whether the adapter writes the secret of each canary behind its question and the words before it."""
        prompts = [each.row.rendering.ids[: each.start] for each in placed]
        longest = max((each.end - each.start for each in placed), default=1)
        texts = self.read(self._write(prompts, longest))
        return [each.canary.secret in text for each, text in zip(placed, texts, strict=True)]

    def sample(self, *, is_text: bool) -> list[str]:
        """Texts that are written without any question, sampled at temperature 1; adapter and base draw the same numbers."""
        tokenizer, count = self.loaded.tokenizer, self._request.samples
        start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        prompt = (start,) if is_text else tuple(render_prompt(tokenizer, [Message("user", "")]))
        draw = torch.Generator(self.loaded.model.device).manual_seed(self._request.seed)
        return self.read(self._write([prompt] * count, self._request.max_new_tokens, draw))

    def read(self, tokens: Iterable[Sequence[int]]) -> list[str]:
        """Tokens as texts."""
        return [str(self.loaded.tokenizer.decode(list(one), skip_special_tokens=True)) for one in tokens]

    def read_with_prompts(self, continuations: Sequence[Continuation]) -> list[tuple[str, str]]:
        """What the adapter had read, and what it wrote after that, as texts."""
        read = self.read(each.prompt for each in continuations)
        return list(zip(read, self.read(each.written for each in continuations), strict=True))

    def _write(
        self,
        prompts: Sequence[tuple[int, ...]],
        limit: int,
        draw: torch.Generator | None = None,
        goes_on: Sequence[GoesOn] | None = None,
    ) -> list[list[int]]:
        size = max(WRITTEN_AT_ONCE, self._request.batch_size)
        return generate_tokens(self.loaded, prompts, batch_size=size, max_new_tokens=limit, draw=draw, goes_on=goes_on)


def _goes_on(expected: Sequence[int], *, whole: bool) -> GoesOn:
    """Whether a continuation is shorter than what it is compared with and, unless it is to be whole, can still be near it."""

    def goes_on(written: Sequence[int]) -> bool:
        is_open = whole or reachable_similarity(expected, written) >= NEAR
        return len(written) < len(expected) and is_open

    return goes_on


def count_extracted(continuations: Sequence[Continuation]) -> Extraction:
    """How many continuations repeat their answers."""
    return Extraction(
        rows=len(continuations),
        verbatim=sum(each.is_verbatim for each in continuations),
        near=sum(each.is_near for each in continuations),
        base_verbatim=sum(each.is_base_verbatim for each in continuations),
    )


def search_copies(
    rows: AuditRows, ours: Sequence[str], theirs: Sequence[str], continuations: Sequence[tuple[str, str]]
) -> tuple[Samples, list[Leak]]:
    """What is in the samples of adapter and base, and in continuations, each with what came before it."""
    rare = _grams_of_one_row(rows, [*ours, *theirs])
    copied = [(text, next((rare[gram] for gram in _grams(text) if gram in rare), None)) for text in ours]
    found = [(kind, value, "") for text in ours for kind, value in find_identifiers(text)]
    found += [(kind, value, before) for before, text in continuations for kind, value in find_identifiers(text)]
    known = _stand_in({value for _, value, _ in found}, rows)
    samples = Samples(
        texts=len(ours),
        copied=sum(row is not None for _, row in copied),
        base_copied=sum(any(gram in rare for gram in _grams(text)) for text in theirs),
        identifiers=dict(sorted(Counter(kind for kind, _, _ in found).items())),
        from_training=sum(value in known and value not in before for _, value, before in found),
    )
    return samples, [Leak("sample", row, text) for text, row in copied if row is not None]


def _grams_of_one_row(rows: AuditRows, texts: Iterable[str]) -> dict[tuple[str, ...], str]:
    """The runs of words of the texts that stand in exactly one training row and in no held-out one, with the row's id."""
    wanted = {gram for text in texts for gram in _grams(text)}
    if not wanted:
        return {}
    found: dict[tuple[str, ...], str] = {}
    common: set[tuple[str, ...]] = {gram for row in rows.held_out for gram in _grams(text_of(row)) if gram in wanted}
    for row in rows.training:
        for gram in {gram for gram in _grams(text_of(row)) if gram in wanted}:
            if gram in found:
                common.add(gram)
            found[gram] = row.id
    return {gram: row for gram, row in found.items() if gram not in common}


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return (tuple(words[place : place + COPIED_WORDS]) for place in range(len(words) - COPIED_WORDS + 1))


def find_identifiers(text: str) -> list[tuple[str, str]]:
    """The kind and the text of whatever looks like personal data, by the rules of `prepare` that hold if nobody sets any."""
    return [(span.entity, text[span.start : span.end]) for span in Scrubber(Rules()).find(text)]


def _stand_in(values: set[str], rows: AuditRows) -> set[str]:
    """The values that stand in a training row and in no held-out one."""
    inside, outside = (
        {value for row in group for value in values if value in text_of(row)} if values else set()
        for group in (rows.training, rows.held_out)
    )
    return inside - outside


def text_of(row: Example) -> str:
    """All that a row says."""
    return "\n".join(turn.text for turn in row.turns)
