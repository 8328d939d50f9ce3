"""From logits to the next token of one sequence: greedy or sampled, with a constraint and log-probabilities."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from finetune.serve.engine.job import GenerationParams

GREEDY_BELOW = 1e-3  # lower temperatures differ from greedy decoding only by rounding, and dividing by them overflows
LIKELIEST = 1024  # tokens that are sorted first; more only if their probabilities do not add up to top_p


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, its natural log-probability, and the likeliest tokens with theirs, if the request asked for them."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one answer. Its random numbers are its own: a seed fixes them, whatever runs beside it."""

    def __init__(
        self, params: GenerationParams, prompt: Iterable[int] = (), *, repetition_penalty: float = 1.0
    ) -> None:
        self._params = params
        self._random = torch.Generator()
        self._random.manual_seed(secrets.randbits(63) if params.seed is None else params.seed)
        self._penalty = repetition_penalty
        self._seen = set(prompt) if repetition_penalty != 1 else set()

    def choose(self, logits: Tensor) -> Choice:
        """The next token, from logits of shape (vocabulary,) on the CPU.

        Log-probabilities are those of the model, before temperature, top_p and constraint.
        """
        wanted = self._params.logprobs
        logprobs = logits.log_softmax(-1) if wanted is not None else None
        token = self._pick(self._restrict(logits))
        if self._params.constraint is not None:
            self._params.constraint.accept(token)
        if self._penalty != 1:
            self._seen.add(token)
        if logprobs is None or wanted is None:
            return Choice(token)
        values, ids = logprobs.topk(min(wanted, len(logprobs)))
        return Choice(token, float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))

    def _restrict(self, logits: Tensor) -> Tensor:
        if self._seen:
            seen = torch.tensor(sorted(self._seen))
            scores = logits[seen]
            penalised = torch.where(scores < 0, scores * self._penalty, scores / self._penalty)
            logits = logits.index_copy(0, seen, penalised)  # a copy: the logits of a runner may not be changed
        allowed = None if self._params.constraint is None else self._params.constraint.allowed()
        if allowed is None:
            return logits
        allowed = functional.pad(allowed, (0, len(logits) - len(allowed)))  # ids beyond the tokenizer's mean nothing
        return logits.masked_fill(~allowed, float("-inf"))

    def _pick(self, logits: Tensor) -> int:
        if self._params.temperature < GREEDY_BELOW:
            return int(logits.argmax())
        probabilities = (logits / self._params.temperature).softmax(-1)
        if self._params.top_p >= 1:
            return self._draw(probabilities)
        values, ids = probabilities.topk(min(LIKELIEST, len(probabilities)))
        if float(values.sum()) < self._params.top_p:
            values, ids = probabilities.sort(descending=True)
        before = values.cumsum(-1) - values
        values = values[: max(1, int((before < self._params.top_p).sum()))]  # at least one, however small top_p is
        return int(ids[self._draw(values)])

    def _draw(self, weights: Tensor) -> int:
        """The place of one of the weights, with a probability that is its share."""
        sums = weights.double().cumsum(-1)
        point = torch.rand((), generator=self._random, dtype=torch.float64) * sums[-1]
        return min(int(torch.searchsorted(sums, point, right=True)), len(weights) - 1)
