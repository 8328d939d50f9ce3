"""lm-evaluation-harness answers the same rows as slmtune does, and with the same prompts it answers the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.artifacts import Adapter, EvalReport
from finetune.errors import InputError, OfflineError, StoppedError, UnknownNameError
from finetune.evaluate import EvalRequest, EvalResult, evaluate
from finetune.models.load import load_adapter
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Message
from finetune.scoring.generation import generate
from finetune.scoring.labels import label_logprobs
from finetune.train import TrainRequest, train

from ..command import run
from ..conftest import chat
from ..corpora import write_corpus

END = "<|im_end|>"
NEWS = ("bearish", "neutral", "bullish")
INTENTS = tuple(f"intent {first} {second}" for first in "abcdefg" for second in "abcdefghijk")


def labelled(number: int, source: str, choices: tuple[str, ...]) -> Example:
    label = choices[number * 7 % len(choices)]
    messages = (
        Message("system", f"Name the {source}."),
        *chat(f"Bank {number} said {label.split()[-1]} today.", label),
    )
    return Example(f"{source}-{number}", messages, "classification", label, choices, source=source)


def question(number: int) -> Example:
    return Example(f"questions-{number}", chat(f"What is {number}?", f"It is {number}."), "qa", source="questions")


def rows_of(numbers: range) -> list[Example]:
    return [
        *(labelled(number, "news", NEWS) for number in numbers),
        *(labelled(number, "intents", INTENTS) for number in numbers),
        *(question(number) for number in numbers),
    ]


ROWS = rows_of(range(30))
TASKS = ("news", "intents", "questions")


def write_task(folder: Path, source: str, rows: list[Example], **changes: Any) -> Path:
    """A task of the harness for rows of a corpus: the same prompts, and answers that end where a turn does."""
    rows = [row for row in rows if row.source == source]
    lines = [
        {
            "question": row.prompt[-1].content,
            "answer": row.answer,
            "choices": [choice + END for choice in row.choices],
            "gold": row.choices.index(row.answer) if row.choices else 0,
        }
        for row in rows
    ]
    (folder / f"{source}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    task: dict[str, Any] = {
        "task": source,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{source}.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "description": rows[0].prompt[0].content if len(rows[0].prompt) > 1 else "",
        "metadata": {"version": 2.0},
    }
    if rows[0].choices:
        task |= {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
        metric = "acc"
    else:
        task |= {"output_type": "generate_until", "doc_to_target": "answer"}
        task |= {"generation_kwargs": {"until": [END], "max_gen_toks": 8, "do_sample": False}}
        metric = "exact_match"
    task["metric_list"] = [{"metric": metric, "aggregation": "mean", "higher_is_better": True}]
    path = folder / f"{source}.yaml"
    path.write_text(yaml.safe_dump(task | changes), "utf-8")
    return path


def answers_of_slmtune(adapter: Path, rows: list[Example]) -> dict[str, dict[str, list[str]]]:
    """By task and contestant: the label with the highest log-probability, or the generated text."""
    loaded = load_adapter(Adapter.open(adapter))

    def ask(source: str) -> list[str]:
        asked = [row for row in rows if row.source == source]
        if not asked[0].choices:
            return generate(loaded, asked, batch_size=4, max_new_tokens=8)
        scores = label_logprobs(loaded, asked, batch_size=4)
        return [row.choices[each.index(max(each))] for row, each in zip(asked, map(list, scores), strict=True)]

    tuned = {source: ask(source) for source in TASKS}
    with loaded.model.disable_adapter():
        return {source: {"base": ask(source), "adapter": tuned[source]} for source in TASKS}


def answers_in(report: Path) -> dict[str, dict[str, list[str]]]:
    """The answers of the harness, as the report keeps them."""
    samples = [json.loads(line) for line in report.with_name("samples.jsonl").read_text("utf-8").splitlines()]
    return {
        source: {
            who: [one[who].removesuffix(END).strip() for one in samples if one["task"] == f"lm-eval/{source}"]
            for who in ("base", "adapter")
        }
        for source in TASKS
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(
        tmp_path_factory.mktemp("corpus") / "corpus", {"train": rows_of(range(30, 60)), "test": ROWS}
    ).path


@pytest.fixture(scope="module")
def adapter(corpus: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness") / "adapter"
    recipe = AdapterRecipe(model=str(tiny_model), learning_rate=1e-2, max_steps=15, eval_steps=0)
    train(TrainRequest(corpus, folder, recipe))
    return folder


@pytest.fixture(scope="module")
def result(adapter: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalResult:
    folder = tmp_path_factory.mktemp("tasks")
    files = tuple(str(write_task(folder, source, ROWS)) for source in TASKS)
    request = EvalRequest(
        adapter, corpus, folder / "eval", tasks=("questions",), max_new_tokens=8, lm_eval=files, forgetting=False
    )
    return evaluate(request)


def test_three_tasks_have_the_same_predictions_row_by_row(result: EvalResult, adapter: Path) -> None:
    ours, theirs = answers_of_slmtune(adapter, ROWS), answers_in(result.report)
    assert theirs == ours
    assert all(len(ours[source]["base"]) == 30 for source in TASKS)
    assert ours["intents"]["base"] != ours["intents"]["adapter"]  # the harness does ask both


@pytest.mark.slow
def test_real_model_has_the_same_predictions_row_by_row(real_model: Path, corpus: Path, tmp_path: Path) -> None:
    recipe = AdapterRecipe(
        model=str(real_model), quantization="none", max_steps=2, per_device_train_batch_size=2, eval_steps=0
    )
    train(TrainRequest(corpus, tmp_path / "adapter", recipe))
    rows = [*ROWS[:3], labelled(0, "intents", INTENTS[:5]), *ROWS[60:63]]  # the harness scores a row once per choice
    files = tuple(str(write_task(tmp_path, source, rows)) for source in TASKS)
    request = EvalRequest(
        tmp_path / "adapter",
        corpus,
        tmp_path / "eval",
        tasks=("questions",),
        limit=3,
        max_new_tokens=8,
        forgetting=False,
    )
    theirs = answers_in(evaluate(replace(request, lm_eval=files)).report)
    assert theirs == answers_of_slmtune(tmp_path / "adapter", rows)
    assert len({text for sides in theirs.values() for texts in sides.values() for text in texts}) > 3


def test_figures_of_the_harness_stand_beside_our_own(result: EvalResult) -> None:
    report = EvalReport.open(result.report.parent)
    score = result.tasks["lm-eval/news"]
    own = answers_in(result.report)["news"]
    labels = [row.label for row in ROWS if row.source == "news"]
    right = {who: sum(a == b for a, b in zip(given, labels, strict=True)) / 30 for who, given in own.items()}
    assert set(result.tasks) == {"questions", *(f"lm-eval/{source}" for source in TASKS)}
    assert (score.n, score.metric) == (30, "acc")
    assert score.base["acc"] == pytest.approx(right["base"])
    assert score.adapter["acc"] == pytest.approx(right["adapter"])
    assert score.ci95[0] <= score.delta <= score.ci95[1]
    assert score.scorer.startswith("lm-evaluation-harness 0.4")
    assert score.scorer.endswith("version 2.0 of the task, with the chat template")
    assert result.tasks["lm-eval/questions"].metric == "exact_match"
    assert "lm_eval" in report.manifest["libraries"]


def test_interrupted_evaluation_takes_over_the_answers_of_the_harness(
    adapter: Path, corpus: Path, tmp_path: Path
) -> None:
    files = tuple(str(write_task(tmp_path, source, ROWS)) for source in ("news", "questions"))
    request = EvalRequest(adapter, corpus, tmp_path / "eval", tasks=("questions",), lm_eval=files, forgetting=False)
    asked: list[str] = []

    def note(stage: str) -> None:
        if "harness" in stage:
            asked.append(stage)
            if len(asked) == 3:  # both tasks have the answers of the base
                raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="5 of 7 tasks"):
        evaluate(request, on_stage=note)
    resumed = evaluate(request, on_stage=note)
    assert [stage.split()[1] for stage in asked] == ["base", "base", "adapter", "adapter", "adapter"]
    whole = evaluate(replace(request, output_dir=tmp_path / "whole"))
    assert resumed.tasks == whole.tasks


def test_limit_and_plain_prompts(adapter: Path, corpus: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path, "news", ROWS)
    request = EvalRequest(
        *(adapter, corpus, tmp_path / "eval"),
        tasks=("questions",),
        max_new_tokens=4,
        limit=5,
        lm_eval=(str(path),),
        lm_eval_chat_template=False,
        forgetting=False,
    )
    score = evaluate(request).tasks["lm-eval/news"]
    assert score.n == 5
    assert "without the chat template" in score.scorer


def test_unusable_tasks_are_refused_before_a_model_is_loaded(adapter: Path, corpus: Path, tmp_path: Path) -> None:
    request = EvalRequest(adapter, corpus, tmp_path / "eval", forgetting=False)

    def refused(spec: Path | str, kind: type[InputError], problem: str) -> None:
        with pytest.raises(kind, match=problem):
            evaluate(replace(request, lm_eval=(str(spec),)), on_stage=pytest.fail)

    refused("hellaswagg", UnknownNameError, "There is no task of lm-evaluation-harness 'hellaswagg'. Did you mean")
    broken = write_task(tmp_path, "news", ROWS, dataset_kwargs={"data_files": {"test": str(tmp_path / "no.jsonl")}})
    refused(broken, InputError, "lm-evaluation-harness cannot run the task .*news.yaml .FileNotFoundError.")
    perplexity = {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
    words = write_task(tmp_path, "questions", ROWS, output_type="loglikelihood", metric_list=[perplexity])
    refused(words, InputError, "The task questions .* has no score that is a mean over rows")
    assert not (tmp_path / "eval").exists()


def test_rows_of_the_hub_need_a_network(adapter: Path, corpus: Path, tmp_path: Path) -> None:
    path = write_task(tmp_path, "news", ROWS, dataset_path="someone/something", dataset_kwargs={})
    words = ["eval", adapter, "--corpus", corpus, "--out", "eval", "--lm-eval", path, "--offline", "--no-forgetting"]
    done = run(*words, cwd=tmp_path, fresh=True)  # `datasets` has read that it is offline
    assert done.returncode == OfflineError.exit_code
    assert done.stderr.strip().endswith("or give a YAML file that names local files")
    assert "--offline forbids the network" in done.stderr
    assert "Traceback" not in done.stderr
