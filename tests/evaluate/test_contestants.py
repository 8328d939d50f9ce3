"""Further contestants of an evaluation: the base with examples in its prompt, and whatever --vs names."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError, SlmtuneError
from finetune.evaluate import EvalRequest, EvalResult, evaluate
from finetune.evaluate.answers import Answers
from finetune.evaluate.ask import ask_all
from finetune.evaluate.contestants.contestant import Contestant
from finetune.evaluate.contestants.few_shot import Budget, add_examples, choose_examples
from finetune.evaluate.contestants.lineup import Group
from finetune.evaluate.store import AnswerStore
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.chat_template import render_messages
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer
from finetune.records import Example
from finetune.scoring.tasks import EvalTask, tasks_of

from ..conftest import chat
from ..encoders import NEWS, write_encoder, write_encoder_adapter
from ..serve.conftest import make_adapter

ROOM = Budget(max_length=512, context=512, answer=0)


@pytest.fixture(scope="module")
def result(
    tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> EvalResult:
    """The tiny adapter beside another adapter of its base model, that model unquantised, and an encoder."""
    folder = tmp_path_factory.mktemp("rivals")
    other = make_adapter(folder / "other", tiny_model, seed=1)
    encoder = write_encoder_adapter(folder / "classifier", write_encoder(folder / "bert", "bert"), NEWS)
    rivals = (str(encoder), f"plain base={tiny_model}", str(other), f"copy={tiny_adapter}")
    return evaluate(
        EvalRequest(tiny_adapter, tiny_corpus, folder / "eval", max_new_tokens=8, limit=6, vs=rivals, forgetting=False)
    )


def news_task(corpus: Path) -> EvalTask:
    return next(task for task in tasks_of(Corpus.open(corpus), "test") if task.name == "news")


def test_every_contestant_answers_the_same_rows_in_the_order_given(result: EvalResult) -> None:
    names = ["base", "few_shot", "classifier", "plain base", "other", "copy", "adapter"]
    assert list(result.tasks["news"].scores) == names
    samples = [json.loads(line) for line in (result.report.parent / "samples.jsonl").read_text("utf-8").splitlines()]
    for sample in samples:
        assert set(names) - {"classifier"} <= set(sample)


def test_adapter_is_compared_with_every_other_contestant(result: EvalResult) -> None:
    task = result.tasks["news"]
    assert set(task.comparisons) == {"base", "few_shot", "classifier", "plain base", "other", "copy"}
    for name, comparison in task.comparisons.items():
        assert comparison.delta == pytest.approx(task.headline["adapter"] - task.headline[name])


def test_rival_that_cannot_answer_a_task_is_left_out_of_it_with_the_reason(result: EvalResult) -> None:
    assert result.tasks["questions"].absent == {"classifier": "its head is for classification"}
    assert "classifier" not in result.tasks["questions"].scores


def test_adapter_as_its_own_rival_answers_the_same(result: EvalResult) -> None:
    samples = [json.loads(line) for line in (result.report.parent / "samples.jsonl").read_text("utf-8").splitlines()]
    assert [sample["copy"] for sample in samples] == [sample["adapter"] for sample in samples]
    assert [sample["other"] for sample in samples] != [sample["adapter"] for sample in samples]


def test_examples_are_spread_over_the_labels_and_always_the_same(tiny_corpus: Path) -> None:
    training = read_split(Corpus.open(tiny_corpus), "train")
    chosen = choose_examples(news_task(tiny_corpus), training, 6)
    assert sorted(str(row.label) for row in chosen) == sorted(["bearish", "bullish", "neutral"] * 2)
    assert choose_examples(news_task(tiny_corpus), training[::-1], 6) == chosen
    assert len({str(row.label) for row in choose_examples(news_task(tiny_corpus), training, 3)}) == 3


def test_examples_are_turns_before_the_question(tiny_corpus: Path, tiny_model: Path) -> None:
    task, training = news_task(tiny_corpus), read_split(Corpus.open(tiny_corpus), "train")
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    extended = add_examples(tokenizer, task, training, 2, ROOM)
    assert extended.shots == 2
    for row, before in zip(extended.task.examples, task.examples, strict=True):
        assert row.messages[-2:] == before.messages[-2:]
        assert [turn.role for turn in row.prompt if turn.role != "system"] == ["user", "assistant"] * 2 + ["user"]


def test_fewer_examples_are_taken_if_not_all_fit(tiny_corpus: Path, tiny_model: Path) -> None:
    task, training = news_task(tiny_corpus), read_split(Corpus.open(tiny_corpus), "train")
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))

    def longest(rows: tuple[Example, ...]) -> int:
        return max(len(render_messages(tokenizer, row.messages).ids) for row in rows)

    room = longest(add_examples(tokenizer, task, training, 2, ROOM).task.examples)
    extended = add_examples(tokenizer, task, training, 5, replace(ROOM, max_length=room))
    assert extended.shots == 2
    assert longest(extended.task.examples) <= room
    short = longest(task.examples)
    in_context = add_examples(tokenizer, task, training, 5, replace(ROOM, max_length=short))
    assert in_context.shots == 5
    none = add_examples(tokenizer, task, training, 5, Budget(max_length=short, context=short, answer=0))
    assert none.reason is not None
    assert "leaves no room" in none.reason


def test_template_without_several_turns_has_no_few_shot_base(tiny_corpus: Path, tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    tokenizer.chat_template = (
        "{% if messages | length > 2 %}{{ raise_exception('one question only') }}{% endif %}" + tokenizer.chat_template
    )
    row = Example("row", chat("What?", "That."), "qa", source="questions")
    other = replace(row, id="other")
    extended = add_examples(tokenizer, EvalTask("questions", "token_f1", (row,)), [other], 1, ROOM)
    assert extended.reason is not None
    assert "one question only" in extended.reason


@pytest.mark.parametrize(
    ("vs", "reason"),
    [
        (("{base}", "{base}"), "Two contestants would be called"),
        (("adapter={base}",), "Two contestants would be called 'adapter'"),
        (("{nothing}",), "There is nothing at"),
        (("{encoder}",), "an encoder without a trained head"),
        (("{corpus}",), "Give one of: adapter, model"),
        (("tiny-nonsense",), "There is no model 'tiny-nonsense'"),
    ],
)
def test_unusable_rival_is_refused_before_anything_is_loaded(
    vs: tuple[str, ...], reason: str, tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    places = {
        "base": tiny_model,
        "nothing": tmp_path / "nothing",
        "encoder": write_encoder(tmp_path / "encoder", "bert"),
        "corpus": tiny_corpus,
    }
    request = EvalRequest(
        tiny_adapter,
        tiny_corpus,
        tmp_path / "out",
        vs=tuple(text.format(**places) for text in vs),
        model="not/loaded",
        forgetting=False,
    )
    with pytest.raises(SlmtuneError, match=reason):
        evaluate(request)
    assert not (tmp_path / "out").exists()


def test_weights_of_a_group_are_freed_before_the_next_is_loaded(tiny_corpus: Path, tmp_path: Path) -> None:
    class Weights:
        """Stands for a model in memory."""

    alive: list[weakref.ref[Weights]] = []

    @contextmanager
    def load() -> Iterator[list[Contestant]]:
        assert not [one for one in alive if one() is not None]
        weights = Weights()
        alive.append(weakref.ref(weights))
        yield [Contestant(name, "rival", lambda task, on_rows: (weights, Answers([]))[1]) for name in ("one", "two")]

    ask_all(
        [Group({"one": ""}, load), Group({"two": ""}, load)], [news_task(tiny_corpus)], AnswerStore(tmp_path, {}, ())
    )
    assert len(alive) == 2


def test_merged_model_answers_beside_its_adapter(
    tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    merged = merge_adapter(MergeRequest(tiny_adapter, tmp_path / "finance" / "model", tiny_corpus)).model
    options: dict[str, Any] = {"tasks": ("news",), "few_shot": 0, "forgetting": False}
    result = evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "eval", vs=(str(merged),), **options))
    assert list(result.tasks["news"].vs) == ["finance/model"]  # every workspace has a folder called model
    assert result.tasks["news"].headline["finance/model"] > result.tasks["news"].headline["base"]


def test_language_models_answer_beside_an_encoder(
    tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    encoder = write_encoder_adapter(tmp_path / "encoder", write_encoder(tmp_path / "bert", "bert"), NEWS)
    rivals = (f"tuned={tiny_adapter}", f"plain={tiny_model}")
    result = evaluate(EvalRequest(encoder, tiny_corpus, tmp_path / "eval", tasks=("news",), vs=rivals))
    task = result.tasks["news"]
    assert list(task.scores) == ["base", "tuned", "plain", "adapter"]
    assert task.headline["tuned"] > task.headline["plain"]


def test_encoder_has_no_few_shot_base(tiny_corpus: Path, tmp_path: Path) -> None:
    adapter = write_encoder_adapter(tmp_path / "adapter", write_encoder(tmp_path / "bert", "bert"), NEWS)
    with pytest.raises(InputError):  # the rows of questions have no label
        evaluate(EvalRequest(adapter, tiny_corpus, tmp_path / "all", forgetting=False))
    result = evaluate(EvalRequest(adapter, tiny_corpus, tmp_path / "eval", tasks=("news",), limit=3, forgetting=False))
    assert list(result.tasks["news"].scores) == ["base", "adapter"]
