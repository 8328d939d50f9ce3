"""What an audit has found, and why. It never says that an adapter is safe: what it did not try, it cannot exclude."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from finetune.audit.bounds import Separation, fisher
from finetune.audit.request import Canaries, Extraction, Samples, Verdict
from finetune.cards.audit_page import SCORE_NAMES

FEWEST_CONTROLS = 100  # fewer cannot show a rate of 1 %
LEVEL = 0.01  # of each kind of test: an adapter that leaks nothing is accused by it in one of a hundred audits


@dataclass(frozen=True)
class Findings:
    """What was measured."""

    separations: Mapping[str, Separation]
    base_separation: Separation | None
    extraction: Extraction
    control_extraction: Extraction
    samples: Samples
    canaries: Canaries | None
    is_own_corpus: bool
    controls: int


def judge(findings: Findings) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and its reasons in sentences without any text of rows."""
    evidence, doubts = [*_evidence(findings)], [*_doubts(findings)]
    if evidence:
        return "leak found", (*evidence, *doubts)
    if doubts:
        return "inconclusive", tuple(doubts)
    return "no evidence of leakage", ()


def _evidence(findings: Findings) -> Iterator[str]:
    if not _are_unlike(findings.base_separation):
        yield from _membership(findings.separations)
    ours, controls = findings.extraction, findings.control_extraction
    if fisher(ours.near, ours.rows, controls.near, controls.rows) < LEVEL:
        yield (
            f"The adapter continues {ours.near} of {ours.rows} answers of training rows nearly word for word ({ours.verbatim} "
            f"exactly), and {controls.near} of {controls.rows} of held-out rows."
        )
    samples = findings.samples
    if samples.copied > samples.base_copied:
        yield (
            f"Without any question, {samples.copied} of {samples.texts} samples contain 13 consecutive words of a single "
            f"training row ({samples.base_copied} of the base model's)."
        )
    if samples.from_training:
        yield f"{samples.from_training} identifiers in generated texts stand in training rows."
    yield from _told_canaries(findings.canaries)


def _membership(separations: Mapping[str, Separation]) -> Iterator[str]:
    """Scores that tell members from controls better than chance, of all tries together in one of a hundred audits."""
    level = LEVEL / (2 * max(1, len(separations)))
    for name, one in separations.items():
        if one.tpr_p_value < level:
            low, high = one.tpr_ci95
            yield (
                f"At 1 % false positives, the {SCORE_NAMES[name]} recognises {one.tpr:.1%} of the training rows ({low:.1%} to "
                f"{high:.1%}); by chance, it would be 1 %."
            )
        elif one.auc_p_value < level:
            low, high = one.auc_ci95
            yield (
                f"The {SCORE_NAMES[name]} is higher for training rows than for held-out ones: AUC {one.auc:.3f} ({low:.3f} to "
                f"{high:.3f}); by chance, it would be 0.5."
            )


def _told_canaries(canaries: Canaries | None) -> Iterator[str]:
    for group in canaries.groups if canaries else ():
        times = "once" if group.repetitions == 1 else f"{group.repetitions} times"
        if group.extracted:
            yield (
                f"Asked for them, the adapter tells {group.extracted} of {group.planted} secrets that were planted {times}, "
                f"and {group.held_out_extracted} of {group.held_out} that were not."
            )
        elif canaries and group.p_value < LEVEL / len(canaries.groups):
            yield (
                f"Its likelihoods tell which secrets were planted {times}: ε is at least {group.epsilon:.2f} with 95 % "
                "confidence."
            )


def _doubts(findings: Findings) -> Iterator[str]:
    if findings.controls < FEWEST_CONTROLS:
        yield (
            f"There are {findings.controls} held-out rows of the same sources, and fewer than {FEWEST_CONTROLS} show nothing "
            "about membership: prepare with larger --split-ratio, or give more with --held-out."
        )
    if (base := findings.base_separation) and _are_unlike(base):
        yield (
            f"The base model alone tells training rows from held-out ones (AUC {base.auc:.3f}), so these are of another kind, "
            "and scores of membership count for nothing: give rows of the same distribution with --held-out."
        )
    if not findings.is_own_corpus:
        yield "The adapter was trained on another corpus: that it does not know this one says nothing about its own rows."
    if findings.canaries and not findings.canaries.groups:
        yield "No canary counts: all were cut off, or by chance all of them were planted or none."


def _are_unlike(base: Separation | None) -> bool:
    """Whether members and controls differ in how likely they were before training, in either direction."""
    return base is not None and min(base.auc_p_value, 1 - base.auc_p_value) < LEVEL / 2
