"""One answer as it grows: its text piece by piece, and its end at a stop token, a stop string or the limit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from finetune.serve.engine.job import GenerationJob, Piece, Result, TokenScore
from finetune.serve.engine.sampling import Choice
from finetune.serve.engine.text import Detokenizer, StopStrings


class Answer:
    """Receives each new token of a job and reports the text that it completes."""

    def __init__(self, job: GenerationJob, ends: frozenset[int], decode: Callable[[Sequence[int]], str]) -> None:
        self._job, self._ends, self._decode = job, ends, decode
        self._detokenizer = Detokenizer(decode)
        self._stops = StopStrings(job.params.stop)
        self._tokens = self._characters = self._reported = 0
        self._end_logprob: float | None = None
        self._scores: deque[tuple[int, TokenScore]] = deque()  # not reported, with the characters before each

    def push(self, choice: Choice) -> Literal["stop", "length"] | None:
        """Add a token. Returns why the answer ends with it, if it does."""
        constraint = self._job.params.constraint
        if choice.token in self._ends:
            self._end_logprob = choice.logprob
            return "stop"
        self._tokens += 1
        if choice.logprob is not None:
            self._scores.append((self._characters, self._score(choice, choice.logprob)))
        piece = self._detokenizer.push(choice.token)
        self._characters += len(piece)
        self._report(self._stops.push(piece))
        if self._stops.is_complete or (constraint is not None and constraint.complete):
            return "stop"
        return "length" if self._tokens == self._job.max_tokens else None

    def finish(self, reason: Literal["stop", "length", "cancelled"]) -> Result:
        """Report the text that was held back, and return the result."""
        if not self._stops.is_complete and reason != "cancelled":
            self._report(self._stops.push(self._detokenizer.finish()))
            if not self._stops.is_complete:
                self._report(self._stops.finish(), is_last=True)
        reason = "stop" if self._stops.is_complete else reason
        return Result(reason, len(self._job.prompt), self._tokens, self._end_logprob)

    def _report(self, text: str, *, is_last: bool = False) -> None:
        self._reported += len(text)
        scores = []
        while self._scores and (is_last or self._scores[0][0] < self._reported):
            scores.append(self._scores.popleft()[1])
        if text or scores:
            self._job.report(Piece(text, tuple(scores)))

    def _score(self, choice: Choice, logprob: float) -> TokenScore:
        top = tuple((token, self._decode([token]), score) for token, score in choice.top)
        return TokenScore(choice.token, self._decode([choice.token]), logprob, top)
