"""The benchmarks that compare slmtune with other tools run to their ends, and both sides compute the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .command import PATIENCE, ROOT, fresh_environment


@pytest.mark.slow
def test_gpu_benchmark_measures_the_same_training_twice(tmp_path: Path) -> None:
    script, table, figures = ROOT / "benchmarks" / "gpu_qlora.py", tmp_path / "table.md", tmp_path / "figures.json"
    command = [sys.executable, str(script), "--smoke", "--table", str(table), "--json", str(figures)]
    done = subprocess.run(
        command, cwd=tmp_path, env=fresh_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert table.read_text("utf-8") == done.stdout
    ours, theirs = json.loads(figures.read_text("utf-8"))["points"]
    assert (ours["trainer"], theirs["trainer"]) == ("slmtune", "sft")
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)  # the same rows, labels and base model
    assert min(point[name] for point in (ours, theirs) for name in ("rate", "mfu", "peak")) > 0


def stored_run(study: str, seed: int, f1: float) -> dict[str, Any]:
    """A result as benchmarks/domains.py stores it."""
    is_encoder = study == "tfns-encoder"
    figures: dict[str, Any] = {"n": 1000, "metric": "weighted_f1", "baseline": "majority" if is_encoder else "base"}
    figures |= {"base": {"weighted_f1": 0.25, "accuracy": 0.3}, "adapter": {"weighted_f1": f1, "accuracy": f1 + 0.01}}
    figures |= {"delta": f1 - 0.25, "ci95": [f1 - 0.3, f1 - 0.2], "p_value": 0.001}
    if not is_encoder:
        few_shot = {"delta": f1 - 0.4, "ci95": [f1 - 0.45, f1 - 0.35], "p_value": 0.001}
        figures |= {"few_shot": {"weighted_f1": 0.4}, "shots": 5, "comparisons": {"few_shot": few_shot}}
    conditions = {"train": "", "limit": None, "machine": "2 cores (invented)", "versions": {"slmtune": "0.1.0"}}
    return {
        **{"study": study, "seed": seed, "conditions": conditions, "rows": {"test": 1000}, "figures": figures},
        **{"train_seconds": 600.0, "eval_seconds": 60.0, "peak_memory_bytes": 2**30},
    }


def run_domains(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "benchmarks" / "domains.py"
    words = [sys.executable, str(script), "--work", str(folder), *options]
    environment = fresh_environment()
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_page_of_results_is_written_from_stored_runs(tmp_path: Path) -> None:
    for study in ("tfns", "tfns-encoder", "pubmedqa", "banking77"):
        for seed, f1 in enumerate((0.8, 0.7, 0.75)):
            path = tmp_path / f"{study}-seed{seed}.json"
            path.write_text(json.dumps(stored_run(study, seed, f1)), "utf-8")
    done = run_domains(tmp_path, "--write", "--page", str(tmp_path / "results.md"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2] == (
        "| TFNS, SmolLM2-135M QLoRA | 1,000 | 0.250 | 0.400 (5 examples) | 0.750 (0.700–0.800) | 0.760 (0.710–0.810) "
        "| +0.500 (+0.450 to +0.550) | +0.350 (+0.300 to +0.400) | 10 + 1 |"
    )
    assert "| 0.250 (most frequent label) | – |" in lines[3]
    page = (tmp_path / "results.md").read_text("utf-8")
    assert done.stdout.strip() in page
    assert "Measured on 2 cores (invented), with slmtune 0.1.0; seeds 0 to 2." in page


def test_page_of_results_takes_only_whole_measurements(tmp_path: Path) -> None:
    (tmp_path / "tfns-seed0.json").write_text(json.dumps(stored_run("tfns", 0, 0.8)), "utf-8")
    for options in (["--only", "tfns"], ["--limit", "9"], ["--train", "--max-steps 1"]):
        done = run_domains(tmp_path, *options, "--write", "--page", str(tmp_path / "results.md"))
        assert done.returncode == 2
        assert "--write takes results of every study" in done.stderr
    done = run_domains(tmp_path, "--only", "tfns", "--seeds", "1", "--limit", "9")
    assert "was measured with other options" in done.stderr
    assert not (tmp_path / "results.md").exists()


@pytest.mark.slow
def test_harness_and_own_scores_give_the_same_labels(tiny_model: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "eval_throughput.py"), "--model", str(tiny_model)]
    command += ["--rows", "12", "--rounds", "1", "--batches", "4", "--json", str(figures)]
    done = subprocess.run(
        command, cwd=tmp_path, env=fresh_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "same predictions 12 of 12" in done.stdout
    measured = json.loads(figures.read_text("utf-8"))
    ours, theirs = measured["slmtune"][0]["logprobs"], measured["harness"][0]["logprobs"]
    for row, other in zip(
        ours, theirs, strict=True
    ):  # the harness counts the last line break of the prompt to all answers
        assert [one - row[0] for one in row] == pytest.approx([one - other[0] for one in other], abs=1e-3)
