"""Renders an audit as text: the verdict with its reasons, the figures behind it, and where the report is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.cards.audit_page import SCORE_NAMES
from finetune.cli.console import duration, facts, paragraph, table

if TYPE_CHECKING:
    from finetune.audit import AuditResult


def render_audit(result: AuditResult) -> str:
    """The figures, then the verdict."""
    parts = [part for part in (_membership(result), _canaries(result)) if part]
    ours, controls, samples = result.extraction, result.control_extraction, result.samples
    found = ", ".join(f"{kind} {number}" for kind, number in samples.identifiers.items())
    summary = facts(
        {
            "continued": f"{ours.near} of {ours.rows} answers of training rows nearly word for word ({ours.verbatim} exactly), "
            f"{controls.near} of {controls.rows} of held-out rows",
            "samples": f"{samples.copied} of {samples.texts} copy 13 words of a training row (base {samples.base_copied})",
            "identifiers": f"{found or 'none'} ({samples.from_training} in training rows)",
            "report": result.report,
            "time": duration(result.seconds),
        }
    )
    reasons = [paragraph(f"- {reason}") for reason in result.reasons]
    return "\n\n".join([*parts, summary, "\n".join([f"Verdict: {result.verdict}", *reasons])])


def _membership(result: AuditResult) -> str:
    rows = [
        [name, f"{one.tpr:.1%}", _share(one.tpr_ci95), f"{one.auc:.3f}", "{:.3f} to {:.3f}".format(*one.auc_ci95)]
        for name, one in [
            *((SCORE_NAMES[name], one) for name, one in result.separations.items()),
            *([("base model alone", result.base_separation)] if result.base_separation else []),
        ]
    ]
    if not rows:
        return ""
    return table(["score", "recognised at 1 % false positives", "95 % interval", "AUC", "95 % interval"], rows)


def _canaries(result: AuditResult) -> str:
    if result.canaries is None:
        return ""
    rows = [
        [
            f"{one.repetitions} times",
            f"{one.extracted} of {one.planted}",
            f"{one.held_out_extracted} of {one.held_out}",
            f"{one.auc:.3f}",
            f"{one.epsilon:.2f}",
        ]
        for one in result.canaries.groups
    ]
    cut = (
        f"\n{result.canaries.cut_off} canaries were cut off by --max-length and do not count"
        if result.canaries.cut_off
        else ""
    )
    return table(["canaries", "planted ones told", "held-out ones told", "AUC", "ε at least"], rows) + cut


def _share(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.1%} to {ends[1]:.1%}"
