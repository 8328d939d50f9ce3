"""The loss curve of the report: every logged step, on a scale on which all of them can be seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.cards.eval_plots import draw_loss
from finetune.cards.loss_curve import JOURNAL, read_loss_curve


def write_journal(folder: Path, losses: list[float], held_out: float | None = None) -> Path:
    lines: list[dict[str, float]] = [{"step": 10 * number, "loss": loss} for number, loss in enumerate(losses, 1)]
    if held_out is not None:
        lines.append({"step": 10 * len(losses), "eval_loss": held_out})
    (folder / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


def test_curve_has_every_logged_step(tmp_path: Path) -> None:
    curve = read_loss_curve(write_journal(tmp_path, [2.0, 1.0, 0.5, 0.25], held_out=0.75))
    assert curve
    assert curve.lines == {"training": [(10, 2.0), (20, 1.0), (30, 0.5), (40, 0.25)], "held out": [(40, 0.75)]}
    assert not curve.logarithmic


def test_losses_of_different_orders_are_on_a_logarithmic_scale(tmp_path: Path) -> None:
    curve = read_loss_curve(write_journal(tmp_path, [10.0, 1.0, 0.1]))
    assert curve
    assert curve.logarithmic


@pytest.mark.parametrize("losses", [[8.7, 0.09], [1e-9, 3e4], [0.0, 5.0], [0.0, 0.0], [7.0, 7.0], [123456.0, 2.0]])
def test_any_losses_can_be_drawn(tmp_path: Path, losses: list[float]) -> None:
    curve = read_loss_curve(write_journal(tmp_path, losses))
    assert curve
    assert f"training ends with {losses[-1]:.3f} at step 20" in draw_loss("loss", curve)


@pytest.mark.parametrize("losses", [[], [1.0]])
def test_no_curve_without_two_points(tmp_path: Path, losses: list[float]) -> None:
    assert read_loss_curve(write_journal(tmp_path, losses)) is None


def test_no_curve_without_a_journal(tmp_path: Path) -> None:
    assert read_loss_curve(tmp_path) is None
