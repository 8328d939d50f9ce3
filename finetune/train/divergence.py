"""The end of a run whose numbers are no longer finite: names the step and its rows, and says what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from finetune.errors import TrainingDivergedError

NAMED_ROWS = 8  # row ids listed in an error


def explain_divergence(
    step: int, losses: Sequence[tuple[list[int], Tensor]], ids: Sequence[str]
) -> TrainingDivergedError:
    """The error of a step whose loss or gradient is not finite; names the rows of the passes where the loss is not.

    Args:
        losses: of the forward passes of the step, with the numbers of their rows.
        ids: of all rows, by number.
    """
    bad = [row for rows, loss in losses if not bool(torch.isfinite(loss)) for row in rows]
    rows = bad or [row for rows, _ in losses for row in rows]
    more = f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
    cause = (
        "Lower --learning-rate (a tenth is a good next try), raise --warmup-ratio, or check these rows"
        if step > 1
        else "No weight had been changed before, so check the base model (make or pull its files again, or try "
        "--compute-dtype float32), or these rows"
    )
    return TrainingDivergedError(
        f"Training diverged at step {step}: its {'loss' if bad else 'gradient'} is not finite (rows "
        f"{', '.join(ids[row] for row in rows[:NAMED_ROWS])}{more}). No adapter was written. {cause}"
    )


def require_finite(step: int, weights: Mapping[str, nn.Parameter]) -> None:
    """Refuse weights from which no run must resume.

    Raises:
        TrainingDivergedError: names the step and a weight that is not finite.
    """
    for name, weight in weights.items():
        if not bool(weight.isfinite().all()):
            raise TrainingDivergedError(
                f"Training diverged at step {step}: {name} is not finite. No adapter was written. Lower --learning-rate"
            )
