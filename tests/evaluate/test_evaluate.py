"""An evaluation of a real adapter: base and adapter side by side, as files that verify."""

from __future__ import annotations

import json
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Adapter, Corpus, EvalReport
from finetune.corpus.store import read_split
from finetune.errors import InputError, MissingStageError, UnknownNameError
from finetune.evaluate import EvalRequest, EvalResult, evaluate


@pytest.fixture(scope="module")
def result(tiny_adapter: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalResult:
    folder = tmp_path_factory.mktemp("reports") / "eval"
    return evaluate(EvalRequest(tiny_adapter, tiny_corpus, folder, max_new_tokens=8, forgetting=False))


def test_training_helped_on_held_out_rows(result: EvalResult) -> None:
    news = result.tasks["news"]
    assert news.headline["adapter"] > news.headline["base"]
    assert news.delta == pytest.approx(news.headline["adapter"] - news.headline["base"])
    assert news.ci95[0] <= news.delta <= news.ci95[1]


def test_every_source_is_a_task_with_its_own_metric(result: EvalResult, tiny_corpus: Path) -> None:
    assert {name: task.metric for name, task in result.tasks.items()} == {
        "news": "weighted_f1",
        "questions": "token_f1",
    }
    rows = read_split(Corpus.open(tiny_corpus), "test")
    assert result.tasks["news"].n == sum(row.source == "news" for row in rows)
    assert result.tasks["questions"].majority is None


def test_report_verifies_and_has_the_documented_keys(result: EvalResult, tiny_adapter: Path) -> None:
    report = EvalReport.open(result.report.parent)
    assert report.manifest["parents"]["adapter"]["fingerprint"] == Adapter.open(tiny_adapter).fingerprint
    data = json.loads((report.path / "report.json").read_text("utf-8"))
    assert None not in data.values()  # a key without a value would look computed
    assert {"n", "metric", "majority", "base", "adapter", "delta", "ci95", "p_value"} <= set(data["tasks"]["news"])
    samples = samples_of(result)
    assert len(samples) == sum(task.n for task in result.tasks.values())
    probabilities = samples[0]["adapter_probabilities"]
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)


def test_page_loads_nothing(result: EvalResult) -> None:
    sources: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            links = ((name, value or "") for name, value in attrs if name in {"src", "href"})
            sources.extend(f"{tag} {name}" for name, value in links if not value.startswith("#"))

    page = result.report.read_text("utf-8")
    Links().feed(page)
    assert "news" in page
    assert "url(" not in page.replace("url(#", "")
    assert sources == []


def test_page_shows_the_rows_that_the_adapter_got_wrong(result: EvalResult, tiny_corpus: Path) -> None:
    page = unescape(result.report.read_text("utf-8"))
    wrong = [sample for sample in samples_of(result) if sample["task"] == "questions"]
    wrong = [sample for sample in wrong if sample["reference"] != sample["adapter"]][:3]
    questions = {row.id: row.prompt[-1].content for row in read_split(Corpus.open(tiny_corpus), "test")}
    assert wrong
    assert all(questions[sample["id"]] in page and sample["reference"] in page for sample in wrong)
    assert "How training went" in page


def test_figures_for_programs_hold_no_text_of_rows(result: EvalResult, tiny_corpus: Path) -> None:
    figures = (result.report.parent / "report.json").read_text("utf-8")
    rows = [row for row in read_split(Corpus.open(tiny_corpus), "test") if row.source == "questions"]
    assert rows
    assert not [row.id for row in rows if row.prompt[-1].content in figures or row.answer in figures]
    assert not [row["id"] for row in samples_of(result) if len(row["adapter"]) > 8 and row["adapter"] in figures]


def samples_of(result: EvalResult) -> list[dict[str, Any]]:
    lines = (result.report.parent / "samples.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_limit_and_task_select_rows(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    request = EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", tasks=("news",), limit=3, forgetting=False)
    assert {name: task.n for name, task in evaluate(request).tasks.items()} == {"news": 3}


def test_single_row_has_a_report_without_f1(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    request = EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", tasks=("news",), limit=1, forgetting=False)
    evaluate(request)
    task = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["tasks"]["news"]
    assert (task["metric"], task["adapter"]["weighted_f1"]) == ("accuracy", None)
    assert "all rows have the same label" in task["undefined"]["weighted_f1"]


def test_unknown_task_is_named(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'news'"):
        evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", tasks=("new",)))
    assert list(tmp_path.iterdir()) == []


def test_missing_adapter_names_the_command(tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingStageError, match="slmtune train --domain finance"):
        evaluate(
            EvalRequest(tmp_path / "no", tiny_corpus, tmp_path / "out", train_command="slmtune train --domain finance")
        )


def test_adapter_of_another_base_is_refused(
    tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(5)
    other = AutoModelForCausalLM.from_config(AutoModelForCausalLM.from_pretrained(tiny_model).config)
    other.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="only on its own base model"):
        evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", model=str(tmp_path / "other")))
