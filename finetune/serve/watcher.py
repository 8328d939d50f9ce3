"""Follows a generation token by token: reports its text and ends it at a stop token, a stop string or on request."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from transformers import StoppingCriteria

from finetune.serve.job import GenerationJob, Piece, Result
from finetune.serve.text import Detokenizer, StopStrings


class Watcher(StoppingCriteria):
    """Receives each new token, reports the text that it completes, and says when to stop."""

    def __init__(self, job: GenerationJob, ends: frozenset[int], detokenizer: Detokenizer) -> None:
        self._job = job
        self._ends = ends
        self._detokenizer = detokenizer
        self._stops = StopStrings(job.params.stop)
        self._tokens = 0
        self._finish_reason: Literal["stop", "length", "cancelled"] = "length"

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        """Whether the only sequence, (1, tokens), is done; called after each new token."""
        done = self._see(int(input_ids[0, -1]))
        return cast(torch.BoolTensor, torch.tensor([done], device=input_ids.device))

    def finish(self) -> Result:
        """Report the text that was held back, and return the result."""
        if not self._stops.is_complete and self._finish_reason != "cancelled":
            self._report(self._stops.push(self._detokenizer.finish()))
            if not self._stops.is_complete:
                self._report(self._stops.finish())
        if self._stops.is_complete:
            self._finish_reason = "stop"
        return Result(self._finish_reason, len(self._job.prompt), self._tokens)

    def _see(self, token: int) -> bool:
        if self._job.cancelled.is_set():
            self._finish_reason = "cancelled"
            return True
        if token in self._ends:
            self._finish_reason = "stop"
            return True
        self._tokens += 1
        self._report(self._stops.push(self._detokenizer.push(token)))
        return self._stops.is_complete

    def _report(self, piece: str) -> None:
        if piece:
            self._job.report(Piece(piece))
