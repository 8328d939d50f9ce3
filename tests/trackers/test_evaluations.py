"""An evaluation at an experiment tracker: the figures of the report, read back, and no text of rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from finetune.artifacts import Adapter
from finetune.errors import InputError
from finetune.evaluate import EvalRequest, evaluate
from finetune.recipe.values import Tracker

from .readers import READ, TRACKERS


@pytest.mark.parametrize("tracker", TRACKERS)
def test_tracker_has_the_figures_of_the_report_and_no_text_of_rows(
    tracker: Tracker, tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path, tracked: Path
) -> None:
    out = tmp_path / "out"
    request = EvalRequest(
        tiny_adapter, tiny_corpus, out, limit=6, max_new_tokens=4, report_to=tracker, forgetting=False
    )
    news = evaluate(request).tasks["news"]
    ((_, config, figures),) = READ[tracker](tmp_path)
    assert figures["news/adapter/weighted_f1"] == pytest.approx(news.headline["adapter"])
    assert figures["news/delta"] == pytest.approx(news.delta)
    assert (figures["news/delta_low"], figures["news/delta_high"]) == pytest.approx(news.ci95)
    assert figures["news/base/ci95_low"] == pytest.approx(news.details["base"].ci95[0])
    assert figures["news/random/accuracy"] == pytest.approx(1 / 3)
    assert config["adapter"] == Adapter.open(tiny_adapter).fingerprint
    assert config["model"] == "tiny-llama"
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text("utf-8").splitlines()]
    texts = [line["reference"] for line in lines if line["task"] == "questions"]
    words = [word.encode() for word in (*texts, "Shares of company", str(tmp_path), str(tiny_corpus.parent))]
    files = [
        path for path in tmp_path.rglob("*") if path.is_file() and out not in path.parents and path.suffix != ".log"
    ]
    assert files
    assert not [(path.name, word) for path in files for word in words if word in path.read_bytes()]


def test_missing_package_is_reported_before_anything_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"needs mlflow, which .* pip install 'slmtune\[mlflow\]'"):
        evaluate(EvalRequest(tmp_path / "no adapter", tmp_path / "no corpus", tmp_path / "out", report_to="mlflow"))
