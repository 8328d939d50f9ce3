"""The examples run unchanged."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from .command import ROOT, installed


def run(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = ["bash", str(ROOT / "examples" / script), *map(str, arguments)]
    with installed() as folder:
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600, check=False)


def test_finance(tiny_model: Path, tmp_path: Path) -> None:
    any_length = ("--max-truncated", "100%")  # the tiny model's tokenizer makes several tokens of most words
    done = run("finance.sh", "--model", tiny_model, "--max-steps", 2, "--eval-steps", 0, *any_length, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"corpus", "adapter", "eval", "model"} == {path.name for path in (tmp_path / "runs/finance").iterdir()}


def test_own_data(tiny_model: Path, tmp_path: Path) -> None:
    rows = [f"message number {number} about {label},{label}" for number in range(40) for label in ("cards", "loans")]
    (tmp_path / "tickets.csv").write_text("\n".join(["text,label", *rows]) + "\n", "utf-8")
    done = run("own_data.sh", "tickets.csv", "Which team?", "--model", tiny_model, "--max-steps", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"corpus", "adapter", "eval", "model"} == {path.name for path in (tmp_path / "runs/custom").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metrics", "libraries"),
    [
        ("code", {"edit_similarity", "exact_match", "parses"}, set()),
        ("translation", {"chrf", "bleu"}, {"sacrebleu"}),
        ("summaries", {"rouge_l", "rouge_1", "rouge_2"}, {"rouge_score"}),
    ],
)
def test_generated_texts_are_scored_by_their_task(
    name: str, metrics: set[str], libraries: set[str], tiny_model: Path, tmp_path: Path
) -> None:
    done = run(f"{name}.sh", "--model", tiny_model, "--max-steps", 2, "--max-truncated", "100%", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "runs" / name / "eval" / "report.json").read_text("utf-8"))
    (task,) = report["tasks"].values()
    assert set(task["base"]) == set(task["adapter"]) == metrics
    assert report["libraries"].keys() & {"sacrebleu", "rouge_score"} == libraries
    assert task["n"] >= 12
    assert all(0 <= score <= 1 for score in task["adapter"].values())
    assert task["ci95"][0] <= task["delta"] <= task["ci95"][1]


def test_code_of_the_example_is_python() -> None:
    files = (ROOT / "examples/code/sample").glob("*.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    assert 40 <= len(rows) <= 80
    for row in rows:
        ast.parse(row["code"])


def test_preferences(tiny_model: Path, tmp_path: Path) -> None:
    done = run("preferences.sh", "--model", tiny_model, "--max-steps", 2, "--eval-steps", 0, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"corpus", "adapter", "eval", "model"} == {path.name for path in (tmp_path / "runs/custom").iterdir()}
    assert "tone: 24 rows" in done.stdout
    assert "reward" in done.stdout
