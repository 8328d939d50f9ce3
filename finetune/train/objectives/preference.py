"""To prefer one answer over another: direct preference optimisation (Rafailov et al., DPO, 2023, arXiv 2305.18290).

The loss is that of TRL's DPOTrainer with its default settings; tests/train/test_preference.py compares value, gradient and
rewards. It is an objective of the one trainer, not a second trainer over DPOTrainer, because that brings its own batches,
which are padded and repeat the prompt, its own figures, which no checkpoint contains, and a mean over each forward pass,
which depends on how a step is divided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from finetune.recipe import AdapterRecipe
from finetune.train.batches.collate import NumberedRows
from finetune.train.batches.rows import TokenRows
from finetune.train.fast.loss import row_losses
from finetune.train.objectives.generation import Generation
from finetune.train.progress import Figures


class Preference(Generation):
    """The objective of pairs of answers, of which the first is preferred.

    The reward of an answer is `beta` times the difference between its log-probabilities in the model and in the
    reference, which is the model as it was before the first step. Those of the reference are computed when a pair first
    occurs, in the same batch, and kept: later epochs do without that forward pass.
    """

    def __init__(self, model: Any, rows: NumberedRows[TokenRows], recipe: AdapterRecipe, pad_token: int) -> None:
        super().__init__(model, rows, recipe, pad_token)
        self._beta = recipe.dpo_beta
        self._reference = torch.full(
            (len(rows), 2), torch.nan
        )  # log-probabilities of both answers; NaN: not computed yet
        self._initial: dict[str, Tensor] = {}
        self._figures = Figures()

    def remember_start(self, model: Any) -> None:
        """Remember the first weights of the adapter for the reference."""
        parameters = model.named_parameters()
        self._initial = {name: each.detach().clone() for name, each in parameters if each.requires_grad}

    def count_terms(self, rows: list[int]) -> int:
        """The number of pairs."""
        return len(rows)

    def loss(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """Summed negative log-probability that the preferred answers are preferred, in nats, by the rewards."""
        reference = self._look_up_reference(model, batch)
        logprobs = _answer_logprobs(model, batch)
        rewards = self._beta * (logprobs - reference.to(logprobs.device))
        margins = rewards[:, 0] - rewards[:, 1]
        self._figures += _measure(rewards.detach())
        return -logsigmoid(margins).sum()

    def take_figures(self) -> Figures:
        """Rewards, their margin and the share of pairs whose preferred answer has the higher one."""
        figures, self._figures = self._figures, Figures()
        return figures

    def state(self) -> dict[str, Tensor]:
        """The log-probabilities of the reference: computed again in other batches, they would be rounded otherwise."""
        return {"reference": self._reference}

    def merge(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Take over the log-probabilities that other processes have computed."""
        for state in states:
            self._reference = self._reference.where(~self._reference.isnan(), state["reference"])

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over the log-probabilities of the reference."""
        self._reference = state["reference"]

    def _look_up_reference(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """Log-probabilities of both answers of each pair in the reference: (pairs, 2)."""
        rows = batch["rows"]
        if bool(self._reference[rows].isnan().any()):
            with self._as_at_first(model), torch.no_grad():
                computed = _answer_logprobs(model, batch).to(self._reference)
            self._reference[rows] = self._reference[rows].where(~self._reference[rows].isnan(), computed)
        return self._reference[rows]

    @contextmanager
    def _as_at_first(self, model: Any) -> Iterator[None]:
        """The model as it was before the first step, without dropout."""
        parameters = {name: each for name, each in model.named_parameters() if name in self._initial}
        now, was_training = {name: each.data for name, each in parameters.items()}, model.training
        try:
            for name, each in parameters.items():
                each.data = self._initial[name]
            yield model.eval()
        finally:
            for name, each in parameters.items():
                each.data = now[name]
            model.train(was_training)


def _answer_logprobs(model: Any, batch: dict[str, Any]) -> Tensor:
    """Log-probabilities of both answers of each pair, in nats: (pairs, 2)."""
    return -row_losses(model.get_base_model(), batch).view(-1, 2)


def _measure(rewards: Tensor) -> Figures:
    """The figures of pairs with these rewards, (pairs, 2)."""
    chosen, rejected = rewards.double().unbind(1)
    sums = {
        "preference_accuracy": (chosen > rejected).sum(),
        "reward_margin": (chosen - rejected).sum(),
        "chosen_reward": chosen.sum(),
        "rejected_reward": rejected.sum(),
    }
    return Figures(len(rewards), {name: float(total) for name, total in sums.items()})
