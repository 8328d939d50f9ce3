"""The benchmarks that compare slmtune with other tools run to their ends, and both sides compute the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .command import PATIENCE, ROOT, fresh_environment, installed, python


def run_benchmark(script: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a benchmark; it and the programs that it starts are forked."""
    with installed() as folder:
        return python(ROOT / "benchmarks" / script, *words, cwd=cwd, executable=folder / "python")


@pytest.mark.slow
def test_gpu_benchmark_measures_the_same_training_twice(tmp_path: Path) -> None:
    table, figures = tmp_path / "table.md", tmp_path / "figures.json"
    done = run_benchmark("gpu_qlora.py", "--smoke", "--table", table, "--json", figures, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert table.read_text("utf-8") == done.stdout
    ours, theirs = json.loads(figures.read_text("utf-8"))["points"]
    assert (ours["trainer"], theirs["trainer"]) == ("slmtune", "sft")
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)  # the same rows, labels and base model
    assert min(point[name] for point in (ours, theirs) for name in ("rate", "mfu", "peak")) > 0


def store_result(folder: Path, study: str, scores: tuple[float, ...]) -> None:
    """Write a result as benchmarks/domains.py stores it; `scores` are those of the seeds."""
    is_encoder = study == "tfns-encoder"
    figures: dict[str, Any] = {"n": 1000, "metric": "weighted_f1", "baseline": "majority" if is_encoder else "base"}
    first, *others = ({"weighted_f1": score, "accuracy": score + 0.01} for score in scores)
    figures |= {"base": {"weighted_f1": 0.25, "accuracy": 0.3}, "adapter": first}
    figures["vs"] = {f"seed {seed}": each for seed, each in enumerate(others, 1)}
    figures |= {"delta": 0.55, "ci95": [0.5, 0.6], "p_value": 0.001}
    if not is_encoder:
        few_shot = {"delta": 0.4, "ci95": [0.35, 0.45], "p_value": 0.001}
        figures |= {"few_shot": {"weighted_f1": 0.4}, "shots": 5, "comparisons": {"few_shot": few_shot}}
    forgetting = {"base": 0.5, "adapter": 0.4, "drop": 0.1, "ci95": [0.05, 0.15]}
    perplexity = {"perplexity": {"base": 60.0, "adapter": 90.0}}
    settings = {"precision": "float32", "settings": {"learning_rate": 0.001}, "machine": "2 cores (invented)"}
    trainings = [
        {"seed": seed, "seconds": 600.0 + 60 * seed, "tokens_per_second": 100.0, "peak_memory_bytes": 2**30} | settings
        for seed in range(len(scores))
    ]
    conditions = {"train": "", "limit": None, "versions": {"slmtune": "0.1.0"}}
    result = {
        **{"study": study, "conditions": conditions, "rows": {"train": 5000, "test": 1000}, "matching_rows": 7},
        **{"trainings": trainings, "figures": figures, "eval_seconds": 60.0},
        "forgetting": None if is_encoder else forgetting | perplexity,
    }
    (folder / f"{study}.json").write_text(json.dumps(result), "utf-8")


def run_domains(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "benchmarks" / "domains.py"
    words = [sys.executable, str(script), "--work", str(folder), "--results", str(folder), *options]
    environment = fresh_environment()
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_page_of_results_is_written_from_stored_results(tmp_path: Path) -> None:
    for study in ("tfns", "tfns-encoder", "pubmedqa", "banking77"):
        store_result(tmp_path, study, (0.8, 0.7, 0.75))
    done = run_domains(tmp_path, "--write", "--page", str(tmp_path / "results.md"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2] == (
        "| TFNS, SmolLM2-135M QLoRA | 1,000 | 0.250 | 0.400 (5 examples) | 0.750 (0.700–0.800) | 0.760 (0.710–0.810) "
        "| +0.550 (+0.500 to +0.600) | +0.400 (+0.350 to +0.450) | 10 (10, 11, 12) |"
    )
    assert "| 0.250 (most frequent label) | – |" in lines[3]
    page = (tmp_path / "results.md").read_text("utf-8")
    assert done.stdout.strip() in page
    assert "Measured with slmtune 0.1.0." in page
    assert "seed 0, 1, 2; on 2 cores (invented)." in page
    assert "TFNS: `prepare` dropped 7 training rows that match test rows." in page
    assert "| TFNS, SmolLM2-135M QLoRA | 0.500 | 0.400 | +0.100 (+0.050 to +0.150) | 60.0 | 90.0 |" in page
    assert "Not measured" not in page


def test_page_of_results_takes_only_whole_measurements_and_names_what_was_not_measured(tmp_path: Path) -> None:
    store_result(tmp_path, "tfns", (0.8,))
    for options in (["--limit", "9"], ["--train", "--max-steps 1"]):
        done = run_domains(tmp_path, "--only", "tfns", *options, "--write", "--page", str(tmp_path / "results.md"))
        assert done.returncode == 2
        assert "--write takes whole measurements" in done.stderr
    done = run_domains(tmp_path, "--only", "tfns", "--seeds", "1", "--limit", "9")
    assert "was measured with another --train or --limit" in done.stderr
    assert not (tmp_path / "results.md").exists()
    page = tmp_path / "results.md"
    done = run_domains(tmp_path, "--only", "tfns", "--seeds", "1", "--write", "--page", str(page))
    assert done.returncode == 0, done.stderr
    assert "Not measured here: TFNS, MiniLM-L6 LoRA; PubMedQA, SmolLM2-135M QLoRA; Banking77" in page.read_text("utf-8")


def test_page_of_results_is_what_the_stored_results_say(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    done = run_domains(ROOT / "benchmarks" / "results", "--seeds", "0", "--write", "--page", str(page))
    assert done.returncode == 0, done.stderr
    assert page.read_text("utf-8") == (ROOT / "docs" / "results.md").read_text("utf-8")


@pytest.mark.slow
def test_harness_and_own_scores_give_the_same_labels(tiny_model: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    words = ("--model", tiny_model, "--rows", 12, "--rounds", 1, "--batches", 4, "--json", figures)
    done = run_benchmark("eval_throughput.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "same predictions 12 of 12" in done.stdout
    measured = json.loads(figures.read_text("utf-8"))
    ours, theirs = measured["slmtune"][0]["logprobs"], measured["harness"][0]["logprobs"]
    for row, other in zip(
        ours, theirs, strict=True
    ):  # the harness counts the last line break of the prompt to all answers
        assert [one - row[0] for one in row] == pytest.approx([one - other[0] for one in other], abs=1e-3)


@pytest.mark.slow
def test_server_stands_a_small_crowd(tiny_model: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "serve_load.py"), "--model", str(tiny_model)]
    command += ["--adapter", str(tiny_adapter), "--requests", "100", "--clients", "8", "--bad-adapters", "10"]
    command += ["--tokens", "8", "--words", "30", "--growth", "1", "--json", str(figures)]
    done = subprocess.run(
        command, cwd=tmp_path, env=fresh_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(figures.read_text("utf-8"))
    assert measured["missed"] == []
    kinds = {name.split()[0] for name in measured["statuses"]}
    assert kinds == {"good", "malformed", "abandoned", "bad-adapter", "metrics"}
