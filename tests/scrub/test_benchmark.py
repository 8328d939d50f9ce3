"""The benchmark scores what is found in a marked file, and no drug or disease is taken for personal data."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from ..command import ROOT


def _row(text: str, template: int, **spans: str) -> dict[str, object]:
    marked = [
        {"entity_type": kind, "start_position": text.index(value), "end_position": text.index(value) + len(value)}
        for kind, value in spans.items()
    ]
    return {"full_text": text, "template_id": template, "spans": marked}


def test_benchmark_prints_recall_precision_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        _row("mail jane@example.com or joe@example.com", 2, EMAIL_ADDRESS="jane@example.com"),
        _row("mail bob at example dot com", 4, EMAIL_ADDRESS="bob at example dot com"),
        _row("mail eve@example.com", 3, EMAIL_ADDRESS="eve@example.com"),
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows), "utf-8")
    script = ROOT / "benchmarks" / "scrub.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--data", str(tmp_path / "rows.json")])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "slmtune: 2 texts" in printed
    assert "EMAIL 2 0.500 2 0.500 0.500" in " ".join(printed.split())
    assert "personal data: 0 of 400 (0.0%)" in printed
