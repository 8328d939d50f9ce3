"""Tasks outside the corpus: sources of a recipe and files of rows, read as they are."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Adapter, Corpus
from finetune.errors import InputError, RecordError, UnknownNameError
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.eval_sets import EvalSets, open_tasks
from finetune.models.heads import Head
from finetune.prepare import PrepareRequest, prepare
from finetune.scoring.label_tasks import KEY

from ..command import run
from ..hub.local_hub import LocalHub
from ..prepare.sources.hub_shapes import TFNS

Opener = Callable[..., EvalSets]
NEWS = [
    {"text": "  Shares of the ferry fell &amp; fell again.", "label": "bearish"},
    {"text": "Call +44 20 7946 0958: the ferry rose.", "label": "bullish"},
    {"text": "Call +44 20 7946 0958: the ferry rose.", "label": "bullish"},
]


@pytest.fixture
def opened(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> Opener:
    """The tasks of an evaluation, without a model in memory; the adapter is an old one unless `knows_tasks`."""
    adapter = Adapter.open(tiny_adapter)
    old = replace(adapter, manifest={name: value for name, value in adapter.manifest.items() if name != KEY})

    def open_named(
        *names: str,
        corpus: Path | None = tiny_corpus,
        head: Head | None = None,
        knows_tasks: bool = False,
        **options: Any,
    ) -> EvalSets:
        request = EvalRequest(tiny_adapter, corpus, tmp_path / "out", tasks=names, **options, forgetting=False)
        return open_tasks(request, adapter if knows_tasks else old, Corpus.open(corpus) if corpus else None, head)

    return open_named


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_rows_of_a_file_are_neither_changed_nor_dropped(opened: Opener, tmp_path: Path) -> None:
    (task,) = opened(write_rows(tmp_path / "mine.jsonl", NEWS)).tasks
    assert task.name == "mine"
    assert sorted(row.prompt[-1].content for row in task.examples) == sorted(row["text"] for row in NEWS)


def test_a_file_can_be_given_a_name_and_be_in_any_format(opened: Opener, tmp_path: Path) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(NEWS)
    sets = opened(f"ferry={tmp_path / 'rows.csv'}", "news")
    assert [task.name for task in sets.tasks] == ["ferry", "news"]
    assert sets.origins == {"ferry": {"uri": "rows.csv", "revision": None, "license": "unknown"}}


def test_labels_of_a_file_are_asked_for_as_in_training(opened: Opener, tmp_path: Path) -> None:
    """A file with two of the three labels of the corpus, one of them in capitals."""
    rows = [row | {"label": row["label"].upper()} for row in NEWS]
    sets = opened("news", write_rows(tmp_path / "mine.jsonl", rows))
    trained, task = sets.tasks
    assert {row.choices for row in task.examples} == {trained.examples[0].choices}
    assert {row.prompt[0] for row in task.examples} == {trained.examples[0].prompt[0]}
    assert sorted(row.answer for row in task.examples) == ["bearish", "bullish", "bullish"]
    assert {row.label for row in task.examples} == {"bearish", "bullish"}
    assert {row.source for row in task.examples} == {
        "news"
    }  # whose training rows are the examples of a few-shot prompt


def test_labels_outside_the_choices_are_refused_with_file_and_line(opened: Opener, tmp_path: Path) -> None:
    rows = [*NEWS, {"text": "The ferry is late.", "label": "bulish"}]
    with pytest.raises(
        InputError, match=r"^mine\.jsonl:4: labels .* choices of news: bulish\. The choices are bearish, "
    ):
        opened(write_rows(tmp_path / "mine.jsonl", rows))
    with pytest.raises(
        InputError, match=r"outside the choices of sentiment: bulish\. The choices are bearish, neutral"
    ):
        opened(str(tmp_path / "mine.jsonl"), corpus=None, domain="finance")
    with pytest.raises(InputError, match="outside the choices of the adapter: bulish"):
        opened(str(tmp_path / "mine.jsonl"), corpus=None, head=Head("classification", ("bearish", "bullish")))


def test_an_adapter_knows_the_question_of_its_training_without_the_corpus(opened: Opener, tmp_path: Path) -> None:
    """A file with the same labels, and one with some of them, neither of which was prepared with that question."""
    trained = opened("news").tasks[0].examples[0]
    for number, rows in enumerate((NEWS, [*NEWS, {"text": "The ferry waits.", "label": "neutral"}])):
        file = write_rows(tmp_path / f"{number}.jsonl", rows)
        (task,) = opened(file, corpus=None, knows_tasks=True).tasks
        assert {(row.choices, row.prompt[0].content, len(row.prompt)) for row in task.examples} == {
            (trained.choices, trained.prompt[0].content, 2)
        }
    with pytest.raises(InputError, match="outside the choices of news: bulish"):
        opened(write_rows(tmp_path / "bulish.jsonl", [*NEWS, {"text": "x", "label": "bulish"}]), knows_tasks=True)


def test_other_labels_are_a_task_of_their_own(opened: Opener, tmp_path: Path) -> None:
    rows = [{"text": "The quay is wet.", "label": "wet"}, {"text": "The quay is dry.", "label": "dry"}]
    (task,) = opened(write_rows(tmp_path / "quays.jsonl", rows)).tasks
    assert task.examples[0].choices == ("dry", "wet")


def test_a_domain_asks_a_file_as_its_own_sources(opened: Opener, tmp_path: Path) -> None:
    (task,) = opened(write_rows(tmp_path / "mine.jsonl", NEWS), corpus=None, domain="finance").tasks
    assert task.examples[0].choices == ("bearish", "neutral", "bullish")
    assert task.examples[0].prompt[0].content == "Is this news bearish, neutral or bullish for the investor?"


def test_a_source_of_the_domain_needs_no_corpus(opened: Opener) -> None:
    (task,) = opened("news", corpus=None, domain="finance", limit=7).tasks
    assert (task.name, len(task.examples)) == ("news", 7)
    whole = opened("news", corpus=None, domain="finance").tasks[0]
    assert len(whole.examples) == 180  # the test rows of the bundled sample, in the same order
    assert whole.examples[:7] == task.examples


def test_the_domain_of_the_training_is_known(opened: Opener, tiny_adapter: Path, tmp_path: Path) -> None:
    adapter = Adapter.open(tiny_adapter)
    trained = {**adapter.manifest, "parents": {"corpus": {"domain": "finance"}}}
    request = EvalRequest(tiny_adapter, None, tmp_path / "out", tasks=("news",), forgetting=False)
    assert len(open_tasks(request, replace(adapter, manifest=trained), None, None).tasks[0].examples) == 180


def test_unknown_task_is_compared_with_all_that_there_are(opened: Opener) -> None:
    with pytest.raises(UnknownNameError, match=r"corpus or of the domain finance called 'tfn'\. Did you mean 'tfns'\?"):
        opened("tfn", domain="finance")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'questions'\? A file of rows is a task too: --task FILE"):
        opened("question")


def test_nothing_to_evaluate_on_is_refused(opened: Opener, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing to evaluate on\. Pass --corpus, or --task"):
        opened(corpus=None)
    with pytest.raises(InputError, match=r"absent\.csv"):
        opened(str(tmp_path / "absent.csv"))
    (tmp_path / "empty.jsonl").write_text("", "utf-8")
    with pytest.raises(InputError, match=r"empty\.jsonl is empty"):
        opened(str(tmp_path / "empty.jsonl"))


def test_a_corpus_without_rows_to_evaluate_on_matters_only_if_one_of_its_tasks_is_asked_for(
    opened: Opener, tmp_path: Path
) -> None:
    rows = [{"question": f"Which pier has number {n}?", "answer": f"Pier {n}."} for n in range(3)]
    source = write_rows(tmp_path / "piers.jsonl", rows)
    prepare(PrepareRequest(tmp_path / "corpus", sources=(source,), split_ratio="1/0/0", near_duplicates=1))
    assert [task.name for task in opened(source, corpus=tmp_path / "corpus").tasks] == ["piers"]
    with pytest.raises(InputError, match=r"The test split of .*corpus has no rows to evaluate on"):
        opened("piers", corpus=tmp_path / "corpus")


def test_texts_without_a_question_are_refused_by_the_name_of_their_file(opened: Opener, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "texts.jsonl", [{"text": "The ferry waits."}, {"text": "The tide turns at nine."}])
    with pytest.raises(InputError, match=r"The test split of .*texts\.jsonl has no rows to evaluate on") as error:
        opened(file)
    assert "/corpus" not in str(error.value)


def test_two_tasks_of_one_name_are_refused(opened: Opener, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 tasks are called news\. Give one another name: --task NAME=FILE"):
        opened("news", f"news={write_rows(tmp_path / 'mine.jsonl', NEWS)}")


def test_rows_that_cannot_be_read_are_named_by_file_and_line(opened: Opener, tmp_path: Path) -> None:
    rows = [{"question": "When?", "answer": "At nine."}, {"question": "Where?", "answer": ""}]
    with pytest.raises(
        InputError, match=r"mine\.jsonl:2: .* options of slmtune prepare: make a corpus of .*mine\.jsonl"
    ):
        opened(write_rows(tmp_path / "mine.jsonl", rows))
    (tmp_path / "mine.jsonl").write_text('{"question": "When?", "answer": "At nine."}\n{broken\n', "utf-8")
    with pytest.raises(RecordError, match=r"mine\.jsonl:2: "):
        opened(str(tmp_path / "mine.jsonl"))


def test_a_file_keeps_to_its_test_rows_if_it_names_splits(opened: Opener, tmp_path: Path) -> None:
    rows = [
        {"question": f"What is {n}?", "answer": f"{n}.", "split": split}
        for n, split in enumerate(["train", "test", ""])
    ]
    (task,) = opened(write_rows(tmp_path / "mine.jsonl", rows)).tasks
    assert sorted(row.answer for row in task.examples) == ["1.", "2."]


def test_noncommercial_sources_need_consent(opened: Opener) -> None:
    with pytest.raises(InputError, match=r"licence of phrasebank .* --accept-noncommercial"):
        opened("phrasebank", domain="finance")


def test_an_evaluation_on_a_file_says_so(tiny_adapter: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mine.jsonl", NEWS)
    result = evaluate(EvalRequest(tiny_adapter, None, tmp_path / "out", tasks=(file,), forgetting=False))
    assert {name: task.n for name, task in result.tasks.items()} == {"mine": 3}
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["eval_sets"] == {"mine": {"uri": "mine.jsonl", "revision": None, "license": "unknown"}}
    assert str(tmp_path) not in (tmp_path / "out" / "report.json").read_text("utf-8")
    shutil.rmtree(tmp_path / "out")


def test_official_test_split_is_read_from_the_hub_and_nothing_else(tiny_adapter: Path, tmp_path: Path) -> None:
    repo = tmp_path / "tfns"
    TFNS.write(repo)
    asked = ("eval", tiny_adapter, "--domain", "finance", "--no-forgetting", "--out", "out", "--json", "--overwrite")
    with LocalHub() as hub:
        hub.serve("dataset", "zeroshot/twitter-financial-news-sentiment", repo)
        online = hub.environ(tmp_path / "home")
        offline = online | {"HF_HUB_OFFLINE": "1"}
        done = run(*asked, "--task", "tfns", cwd=tmp_path, env=online)
        assert done.returncode == 0, done.stderr
        paths = [record.path for record in hub.requests]
        assert any("sent_valid.csv" in path for path in paths)
        assert not any("sent_train.csv" in path for path in paths)
        assert json.loads(done.stdout)["tasks"]["tfns"]["n"] == 1
        assert run(*asked, "--task", "tfns", cwd=tmp_path, env=offline).returncode == 0  # from the cache
        absent = run(*asked, "--task", "tfn-topics", cwd=tmp_path, env=offline)
    assert absent.returncode == 2
    assert "twitter-financial-news-topic" in absent.stderr
    assert "is not in the cache" in absent.stderr
    assert "--source" not in absent.stderr
    assert "Traceback" not in absent.stderr
