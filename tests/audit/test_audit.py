"""An audit catches what was learnt by heart, and accuses nobody else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import AuditReport, Corpus
from finetune.audit import AuditRequest, AuditResult, audit
from finetune.audit.bounds import separate
from finetune.audit.verdict import Findings, judge
from finetune.canary_key import read_key, write_key
from finetune.corpus.store import read_split
from finetune.errors import InputError
from finetune.prepare import PrepareRequest

from ..cards.page import Page
from ..command import run as slmtune
from .conftest import EACH, run_audit

SCORES = ("error_zone", "loss_difference", "min_k_plus_plus")


def test_rows_that_were_learnt_by_heart_are_recognised(overfitted_audit: AuditResult) -> None:
    assert overfitted_audit.verdict == "leak found"
    assert tuple(overfitted_audit.separations) == SCORES
    for one in overfitted_audit.separations.values():
        assert (one.members, one.controls) == (EACH, EACH)
        assert one.tpr > 0.5
        assert one.auc_ci95[0] > 0.9


def test_rows_that_were_learnt_by_heart_are_written_down(overfitted_audit: AuditResult) -> None:
    ours, controls = overfitted_audit.extraction, overfitted_audit.control_extraction
    assert 0 < ours.verbatim <= ours.near
    assert (ours.base_verbatim, controls.verbatim, controls.near) == (0, 0, 0)


def test_planted_secrets_are_told_and_held_out_ones_never(overfitted_audit: AuditResult) -> None:
    assert overfitted_audit.canaries is not None
    groups = {group.repetitions: group for group in overfitted_audit.canaries.groups}
    assert groups[16].extracted == groups[16].planted > 0
    assert sum(group.held_out for group in groups.values()) > 5
    assert not any(group.held_out_extracted for group in groups.values())
    assert groups[16].auc == 1


def test_one_epoch_leaks_less(overfitted_audit: AuditResult, one_epoch_audit: AuditResult) -> None:
    assert one_epoch_audit.verdict == "no evidence of leakage"
    assert one_epoch_audit.reasons == ()
    for name in SCORES:
        less, more = (each.separations[name] for each in (one_epoch_audit, overfitted_audit))
        assert less.auc < more.auc
        assert less.tpr < more.tpr


def test_an_adapter_that_never_saw_the_rows_knows_nothing(foreign_audit: AuditResult) -> None:
    for one in foreign_audit.separations.values():
        assert one.auc_ci95[0] < 0.5 < one.auc_ci95[1]
        assert one.tpr_p_value > 0.01
    assert foreign_audit.extraction.near == foreign_audit.samples.copied == 0
    assert foreign_audit.canaries is not None
    assert not any(group.extracted for group in foreign_audit.canaries.groups)


def test_ignorance_of_another_adapters_corpus_proves_nothing(foreign_audit: AuditResult) -> None:
    assert foreign_audit.verdict == "inconclusive"
    assert "trained on another corpus" in foreign_audit.reasons[0]


def findings_of(result: AuditResult) -> Findings:
    return Findings(
        separations=result.separations,
        base_separation=result.base_separation,
        extraction=result.extraction,
        control_extraction=result.control_extraction,
        samples=result.samples,
        canaries=result.canaries,
        is_own_corpus=True,
        controls=EACH,
    )


def test_few_controls_prove_nothing(one_epoch_audit: AuditResult) -> None:
    verdict, reasons = judge(replace(findings_of(one_epoch_audit), controls=99))
    assert verdict == "inconclusive"
    assert "There are 99 held-out rows" in reasons[0]


def test_controls_of_another_kind_prove_nothing(overfitted_audit: AuditResult) -> None:
    """Where the base model itself tells the rows apart, so does every adapter, whatever it has learnt."""
    nothing = replace(overfitted_audit.extraction, verbatim=0, near=0)
    findings = replace(findings_of(overfitted_audit), canaries=None, extraction=nothing)
    assert judge(findings)[0] == "leak found"
    for members, controls in ((1.0, 0.0), (0.0, 1.0)):
        verdict, reasons = judge(replace(findings, base_separation=separate([members] * EACH, [controls] * EACH)))
        assert verdict == "inconclusive"
        assert "of another kind" in reasons[0]


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [({"copied": 1}, "1 of 16 samples contain 13"), ({"from_training": 2}, "2 identifiers in generated texts")],
)
def test_a_single_copy_is_a_leak(one_epoch_audit: AuditResult, samples: dict[str, Any], sentence: str) -> None:
    findings = replace(findings_of(one_epoch_audit), samples=replace(one_epoch_audit.samples, **samples))
    verdict, reasons = judge(findings)
    assert verdict == "leak found"
    assert sentence in " ".join(reasons)


def texts_of(folder: Path) -> str:
    return "".join((folder / name).read_text("utf-8") for name in ("audit.json", "audit.html", "manifest.json"))


def test_the_report_has_no_text_of_rows_and_no_secrets(audited: PrepareRequest, overfitted_audit: AuditResult) -> None:
    told = texts_of(overfitted_audit.report.parent)
    secrets = [canary.secret for canary in read_key(audited.key_path)[0]]
    answers = [row.answer for row in read_split(Corpus.open(audited.folder), "train")]
    assert not any(private in told for private in [*secrets, *answers])
    assert str(audited.key_path) not in told
    assert AuditReport.open(overfitted_audit.report.parent).manifest["config"]["limit"] == 150


def test_the_page_says_what_the_file_for_programs_says(overfitted_audit: AuditResult) -> None:
    data = json.loads((overfitted_audit.report.parent / "audit.json").read_text("utf-8"))
    page = overfitted_audit.report.read_text("utf-8")
    assert data["verdict"] == "leak found"
    assert "<h1>Leak found</h1>" in page
    assert f"{data['extraction']['near']} of {data['extraction']['rows']}" in page
    assert Page(page).problems == []
    assert "src=" not in page
    assert "<script" not in page


def test_the_key_of_another_corpus_is_refused(audited: PrepareRequest, one_epoch: Path, tmp_path: Path) -> None:
    write_key(tmp_path / "key", read_key(audited.key_path)[0][:-1])
    with pytest.raises(InputError, match="does not belong to the corpus"):
        audit(AuditRequest(one_epoch, audited.folder, tmp_path / "out", tmp_path / "key"))
    assert not (tmp_path / "out").exists()


def test_the_command_exits_with_3_if_a_leak_was_found_and_shows_texts_if_asked(
    audited: PrepareRequest, overfitted: Path, tmp_path: Path
) -> None:
    few = ("--extractions", 0, "--samples", 0, "--corpus", audited.folder)
    leaky = slmtune("audit", overfitted, *few, "--show-text", "--out", tmp_path / "report", cwd=tmp_path)
    assert leaky.returncode == 3
    assert "Verdict: leak found" in leaky.stdout
    assert "16 times" in leaky.stdout
    assert "The adapter leaks what it was trained on" in leaky.stderr
    leaks = json.loads((tmp_path / "report" / "audit.json").read_text("utf-8"))["leaks"]
    shown = {leak["text"] for leak in leaks if leak["kind"] == "canary"}
    assert shown
    assert shown <= {canary.secret for canary in read_key(audited.key_path)[0] if canary.planted}
    assert all(secret in (tmp_path / "report" / "audit.html").read_text("utf-8") for secret in shown)


def test_an_audit_does_not_depend_on_the_batch(
    audited: PrepareRequest, one_epoch: Path, one_epoch_audit: AuditResult
) -> None:
    alone = run_audit(audited, one_epoch, "audit-alone", batch_size=3, extractions=0, samples=0)
    for name, one in one_epoch_audit.separations.items():
        assert alone.separations[name].auc == pytest.approx(one.auc, abs=2e-3)
