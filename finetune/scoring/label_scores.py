"""Three ways to score labels by their likelihood as answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Scoring = Literal["raw", "normalized", "calibrated"]
SCORINGS: tuple[Scoring, ...] = get_args(Scoring)


@dataclass(frozen=True)
class LabelScores:
    """What a model makes of each of a row's choices as the complete answer, the end-of-turn token included.

    Args:
        logprobs: summed over the tokens of the answer, in nats.
        lengths: of the answers in tokens.
        priors: log-probabilities of the same answers where the question has no content; empty if not asked for.
        greedy: the number of the choice that greedy decoding among the choices gives.
    """

    logprobs: tuple[float, ...]
    lengths: tuple[int, ...]
    priors: tuple[float, ...]
    greedy: int

    def scores(self, scoring: Scoring) -> tuple[float, ...]:
        """The score of each choice, of which the highest wins.

        "raw" is the log-probability of the answer; "normalized" its mean over the tokens, so that long labels are not at
        a disadvantage; "calibrated" is how much likelier the question makes the answer than a question without content
        (Zhao et al., 2021, arXiv 2102.09690; Holtzman et al., 2021, arXiv 2104.08315), so that frequent labels have no
        advantage.
        """
        if scoring == "normalized":
            return tuple(total / length for total, length in zip(self.logprobs, self.lengths, strict=True))
        if scoring == "calibrated":
            return tuple(total - prior for total, prior in zip(self.logprobs, self.priors, strict=True))
        return self.logprobs

    def best(self, scoring: Scoring) -> int:
        """The number of the choice with the highest score, the first of equals."""
        scores = self.scores(scoring)
        return scores.index(max(scores))
