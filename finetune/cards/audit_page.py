"""The page of an audit: verdict and reasons, how well training rows are recognised, what was written down, and canaries.

One file without scripts or external resources. It contains no text of rows, unless the user asked for what leaked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.cards.eval_plots import Bar, draw_bars
from finetune.cards.templating import ENVIRONMENT

SCORE_NAMES = {
    "error_zone": "error zone",
    "loss_difference": "loss difference",
    "min_k_plus_plus": "Min-K%++ difference",
}


def audit_page(data: Mapping[str, Any]) -> str:
    """The page as HTML, of the contents of audit.json."""
    separations = data["separations"]
    bars = [
        Bar(SCORE_NAMES[name], one["tpr"], tuple(one["tpr_ci95"]), name == "error_zone")
        for name, one in separations.items()
    ]
    what = "training rows recognised at 1 % false positives"
    return ENVIRONMENT.get_template("audit.html.jinja").render(
        audit=data,
        names=SCORE_NAMES,
        bars=draw_bars("recognised", bars, {"chance": 0.01}, what) if bars else "",
        extractions={"training rows": data["extraction"], "held-out rows": data["control_extraction"]},
    )
