"""The best evaluation of a run: its scores and weights, and whether enough others have followed it to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.train.checkpoints.checkpoint import BEST, WEIGHTS
from finetune.train.progress import Evaluation, Evaluations


@dataclass
class Best:
    """Keeps the weights of the best evaluation so far, of those with equal scores the one with the lowest loss.

    Args:
        metric: the score that decides; a loss is better if it is lower, any other score if it is higher.
        patience: the number of later evaluations after which the run stops; 0: none.
        keeps_weights: whether the adapter will be that of the best evaluation.
    """

    metric: str
    patience: int
    keeps_weights: bool
    evaluations: Evaluations = field(default_factory=Evaluations)
    weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def is_final(self) -> bool:
        """Whether so many evaluations have passed without a better one that the run stops."""
        return 0 < self.patience <= self.evaluations.later

    @property
    def chosen(self) -> Evaluation | None:
        """The evaluation of the weights that the adapter will have; None if there was no evaluation."""
        return self.evaluations.best if self.keeps_weights else self.evaluations.newest

    def add(self, newest: Evaluation, trainable: Mapping[str, nn.Parameter]) -> None:
        """Compare an evaluation of the current weights with the best one so far."""
        best, later = self.evaluations.best, self.evaluations.later + 1
        if best is None or self._rank(newest) > self._rank(best):
            best, later = newest, 0
            if self.keeps_weights:
                self.weights = {name: parameter.detach().cpu().clone() for name, parameter in trainable.items()}
        self.evaluations = Evaluations(best, newest, later)

    def apply(self, trainable: Mapping[str, nn.Parameter]) -> None:
        """Give the model the weights of the best evaluation, if that is not the newest one."""
        if self.keeps_weights and self.evaluations.later:
            with torch.no_grad():
                for name, parameter in trainable.items():
                    parameter.copy_(self.weights[name])

    def write(self, folder: Path, step: int) -> None:
        """Add the best weights to the checkpoint of `step`, unless they are the weights of the checkpoint itself."""
        best = self.evaluations.best
        if self.keeps_weights and best is not None and best.step != step:
            save_file({name: tensor.contiguous() for name, tensor in self.weights.items()}, folder / BEST)

    def restore(self, evaluations: Evaluations, checkpoint: Path, step: int) -> None:
        """Continue with the evaluations and the best weights of the checkpoint of `step`."""
        self.evaluations = evaluations
        if self.keeps_weights and evaluations.best is not None:
            self.weights = load_file(checkpoint / (WEIGHTS if evaluations.best.step == step else BEST))

    def _rank(self, evaluation: Evaluation) -> tuple[float, float]:
        better_if_lower = -evaluation.scores["loss"]
        return (better_if_lower if self.metric == "loss" else evaluation.scores[self.metric]), better_if_lower
