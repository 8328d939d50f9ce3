"""Reports side by side: differences only between answers to the same rows, and a warning where there are others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune.cli.render.report_comparison import render_comparison
from finetune.errors import ArtifactError, InputError
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.compare import compare_reports, name_reports

from ..command import run as slmtune


def write_report(folder: Path, answers: list[str], truth: list[str], rows: str = "same", **more: Any) -> Path:
    """A report of one task, with samples."""
    folder.mkdir(parents=True)
    right = [float(answer == label) for answer, label in zip(answers, truth, strict=True)]
    scores = {"accuracy": sum(right) / len(right)}
    task = {
        "n": len(truth),
        "metric": "accuracy",
        "adapter": scores,
        "details": {"adapter": {"ci95": [0.1, 0.9]}},
        "rows_hash": rows,
    }
    (folder / "report.json").write_text(json.dumps({"tasks": {"news": task}, **more}), "utf-8")
    samples = [
        {"task": "news", "id": str(number), "reference": label, "adapter": answer, "adapter_score": score}
        for number, (label, answer, score) in enumerate(zip(truth, answers, right, strict=True))
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples), "utf-8")
    return folder


TRUTH = ["up", "down"] * 20
HALF = ["up"] * 40


def test_same_rows_are_compared_in_pairs(tmp_path: Path) -> None:
    one, other = write_report(tmp_path / "one", HALF, TRUTH), write_report(tmp_path / "other", TRUTH, TRUTH)
    result = compare_reports(name_reports([str(one), str(other)]))
    task = result.tasks["news"]
    assert task.rows == "same"
    assert [figure.value for figure in task.figures.values()] == [0.5, 1.0]
    assert task.figures["one"].ci95 == (0.1, 0.9)
    assert task.differences["other"].delta == 0.5
    assert task.differences["other"].p_value < 0.01
    assert "other    40    1.000  0.100 to 0.900  +0.500" in render_comparison(result)


def test_other_rows_are_not_compared(tmp_path: Path) -> None:
    one, other = write_report(tmp_path / "one", HALF, TRUTH), write_report(tmp_path / "other", TRUTH, TRUTH, "others")
    result = compare_reports(name_reports([str(one), str(other)]))
    assert (result.tasks["news"].rows, result.tasks["news"].differences) == ("other", {})
    assert "different rows: these figures cannot be compared" in render_comparison(result)


def test_report_without_samples_has_its_figures_only(tmp_path: Path) -> None:
    one, other = write_report(tmp_path / "one", HALF, TRUTH), write_report(tmp_path / "other", TRUTH, TRUTH)
    (other / "samples.jsonl").unlink()
    result = compare_reports({"a": one / "report.json", "b": other / "report.json"})
    assert (result.tasks["news"].rows, result.tasks["news"].differences) == ("same", {})
    assert "Without samples of both, b and a are not compared row by row." in render_comparison(result)


def test_forgetting_is_beside_the_figures_where_it_was_measured(tmp_path: Path) -> None:
    drop = {"n": 312, "base": 0.61, "adapter": 0.58, "drop": 0.03, "ci95": [0.01, 0.05], "categories": {}}
    one = write_report(tmp_path / "one", HALF, TRUTH, forgetting=drop)
    other = write_report(tmp_path / "other", TRUTH, TRUTH, forgetting=None)
    text = render_comparison(compare_reports(name_reports([str(one), str(other)])))
    assert "one    312  0.610    0.580  0.030  0.010 to 0.050" in text


def test_names_are_the_shortest_that_differ() -> None:
    assert list(name_reports(["runs/finance/eval", "runs/health/eval", "mine=old/report.json"])) == [
        "finance/eval",
        "health/eval",
        "mine",
    ]
    with pytest.raises(InputError, match="given twice"):
        name_reports(["runs/a", "runs/a/report.json"])
    with pytest.raises(InputError, match="Two reports are called x"):
        name_reports(["x=a", "x=b"])


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    one = write_report(tmp_path / "one", HALF, TRUTH)
    with pytest.raises(InputError, match=r"There is no report.json at .*nowhere"):
        compare_reports({"one": one, "other": tmp_path / "nowhere"})
    (tmp_path / "report.json").write_text('{"tasks": {"news": {"n": 3}}}')
    with pytest.raises(ArtifactError, match=r"tasks\.news\.metric cannot be read"):
        compare_reports({"one": one, "other": tmp_path})
    other = write_report(tmp_path / "other", HALF, TRUTH)
    (other / "report.json").write_text('{"tasks": {}}')
    with pytest.raises(InputError, match=r"no task in common \(one: news; other: \)"):
        compare_reports({"one": one, "other": other})


def test_command_compares_real_reports(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    first = tmp_path / "runs" / "a" / "eval"
    evaluate(EvalRequest(tiny_adapter, tiny_corpus, first, tasks=("news",), forgetting=False))
    shutil.copytree(first, tmp_path / "runs" / "b" / "eval")
    evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "few", tasks=("news",), limit=5, forgetting=False))
    done = slmtune("compare", "runs/a", "runs/b", "few", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)["tasks"]["news"]
    assert task["rows"] == "other"
    assert (task["metric"], set(task["differences"])) == ("weighted_f1", {"b"})
    assert (task["differences"]["b"]["delta"], task["differences"]["b"]["p_value"]) == (0.0, 1.0)
    report = tmp_path / "runs" / "b" / "eval" / "report.json"
    report.write_text(report.read_text("utf-8").replace('"n": 1', '"n": 2'), "utf-8")
    changed = slmtune("compare", "runs/a", "runs/b", cwd=tmp_path)
    assert changed.returncode == 2
    assert "report.json has changed since it was written" in changed.stderr
    alone = slmtune("compare", "runs/a", cwd=tmp_path)
    assert alone.returncode == 2
    assert "second report" in alone.stderr
