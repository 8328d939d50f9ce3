"""Shares of sources and replayed rows: each epoch has exactly what was asked for, whatever happens to the run."""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Adapter, Corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError, StoppedError
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.train import TrainRequest, plan_training, train
from finetune.train.batches.mixture import mix
from finetune.train.replay import BUNDLED
from finetune.train.trainer import SupervisedTrainer

from ..command import Command
from .kills import outcome, run_with_kills, training

SOURCES = ["a"] * 10 + ["b"] * 30


def questions(folder: Path, count: int, name: str = "general") -> Path:
    rows = "".join(
        json.dumps({"question": f"What is {name} number {n}?", "answer": f"Number {n}."}) + "\n" for n in range(count)
    )
    (folder / f"{name}.jsonl").write_text(rows, "utf-8")
    source = str(folder / f"{name}.jsonl")
    prepare(PrepareRequest(folder / name, sources=(source,), license="cc0-1.0", split_ratio="1/0/0", dedup=False))
    return folder / name


@pytest.fixture(scope="session")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions(tmp_path_factory.mktemp("general"), 40)


@pytest.fixture(scope="session")
def settings(tiny_model: Path) -> AdapterRecipe:
    shape = {"per_device_train_batch_size": 5, "max_steps": None, "num_train_epochs": 3, "learning_rate": 1e-2}
    return AdapterRecipe.model_validate({"model": str(tiny_model), "eval_steps": 0, "save_steps": 3} | shape)


@pytest.mark.parametrize(
    ("shares", "counts"),
    [
        ({"a": 0.7, "b": 0.3}, {"a": 28, "b": 12}),
        ({"a": 1, "b": 2}, {"a": 13, "b": 27}),
        ({"a": 0, "b": 5}, {"a": 0, "b": 30}),
    ],
)
def test_each_epoch_has_the_shares_and_uses_all_rows_alike(shares: dict[str, float], counts: dict[str, int]) -> None:
    mixture = mix(SOURCES, shares, 0, 0.0, seed=1)
    assert mixture is not None
    assert mixture.counts == counts
    used: Counter[int] = Counter()
    for epoch in range(7):
        rows = mixture.rows_of(epoch)
        assert Counter(SOURCES[row] for row in rows) == Counter({name: n for name, n in counts.items() if n})
        assert rows == mixture.rows_of(epoch)
        used.update(rows)
    for name in "ab":
        times = [used[row] for row, source in enumerate(SOURCES) if source == name]
        assert max(times) - min(times) <= 1
    assert mixture.rows_of(0) != mixture.rows_of(1)


def test_replayed_rows_are_the_share_of_each_epoch_beside_the_whole_corpus() -> None:
    mixture = mix(SOURCES, {}, 25, 0.2, seed=1)
    assert mixture is not None
    assert mixture.counts == {"a": 10, "b": 30, "replay": 10}
    for epoch in range(3):
        rows = sorted(mixture.rows_of(epoch))
        assert rows[:40] == list(range(40))
        assert len(rows) == 50
        assert all(40 <= row < 65 for row in rows[40:])


@pytest.mark.parametrize(
    ("shares", "parts"),
    [
        ({"a": 1, "c": 1}, "no training rows of a source c. Its sources are: a, b"),
        ({"a": 1}, "no share for the source b. Add b=SHARE, or b=0"),
        ({"a": 0, "b": 0}, "all shares are 0"),
    ],
)
def test_shares_that_do_not_fit_the_sources_are_refused(shares: dict[str, float], parts: str) -> None:
    with pytest.raises(InputError, match=parts):
        mix(SOURCES, shares, 0, 0.0, seed=1)


def test_shares_are_read_from_one_text() -> None:
    recipe = AdapterRecipe.model_validate({"mix": ("finance=0.7,general=30%",), "replay": "5%"})
    assert recipe.mix == {"finance": 0.7, "general": 0.3}
    assert recipe.replay == 0.05
    with pytest.raises(ValueError, match="NAME=SHARE"):
        AdapterRecipe.model_validate({"mix": "finance"})


def trained_rows(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows of each step from now on."""
    steps: list[list[int]] = []
    step = SupervisedTrainer.training_step

    def noting(trainer: SupervisedTrainer, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        steps.append(list(inputs["rows"]))
        return step(trainer, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SupervisedTrainer, "training_step", noting)
    return steps


@pytest.mark.parametrize("stopped_after", [4, 11], ids=["in the first epoch", "in the second epoch"])
def test_resumed_run_trains_on_the_rows_of_an_undisturbed_one(
    settings: AdapterRecipe,
    tiny_corpus: Path,
    general: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_after: int,
) -> None:
    sources = [row.source for row in read_split(Corpus.open(tiny_corpus), "train")]
    names = sorted(set(sources))
    recipe = settings.model_copy(update={"mix": {names[0]: 0.25, names[1]: 0.75}, "replay": 0.2})
    request = TrainRequest(tiny_corpus, tmp_path / "whole" / "adapter", recipe, replay_corpus=general)
    steps = trained_rows(monkeypatch)
    result = train(request)
    whole = [row for step in steps for row in step]
    rows, quota = len(sources), round(len(sources) / 4)
    expected = {names[0]: quota, names[1]: rows - quota, "replay": rows // 4}
    assert result.mixture == pytest.approx(expected, abs=1)
    size = sum(result.mixture.values())
    assert len(whole) == 3 * size
    for epoch in range(3):
        part = whole[epoch * size : (epoch + 1) * size]
        assert Counter([*sources, *["replay"] * 40][row] for row in part) == result.mixture
    manifest = Adapter.open(tmp_path / "whole" / "adapter").manifest
    assert manifest["mixture"] == result.mixture
    assert manifest["parents"]["replay"]["fingerprint"] == Corpus.open(general).fingerprint
    card = (tmp_path / "whole" / "adapter" / "README.md").read_text("utf-8")
    assert f"replay {result.mixture['replay']}" in card
    assert str(general) not in json.dumps(manifest)
    steps.clear()
    stopped = replace(request, output_dir=tmp_path / "stopped" / "adapter")
    with pytest.raises(StoppedError):
        train(stopped, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == stopped_after else None)
    train(replace(stopped, resume=True))
    assert [row for step in steps for row in step] == whole
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_killed_run_with_replay_ends_with_the_same_bytes(
    tiny_model: Path, tiny_corpus: Path, general: Path, tmp_path: Path
) -> None:
    arguments = [*training(tiny_model, tiny_corpus, replay="20%", eval_steps=0), "--replay-corpus", general]
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = Command(*arguments, cwd=tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr
    seconds = whole.result["seconds"]
    outcomes = run_with_kills(arguments, tmp_path / "killed", at_random=2, while_writing=1, seed=3, seconds=seconds)
    assert all(one == outcome(tmp_path / "whole") for one in outcomes)


def test_other_replayed_rows_and_shares_are_refused_on_resume(
    settings: AdapterRecipe, tiny_corpus: Path, general: Path, tmp_path: Path
) -> None:
    recipe = settings.model_copy(update={"replay": 0.2})
    request = TrainRequest(tiny_corpus, tmp_path / "adapter", recipe, replay_corpus=general)
    with pytest.raises(StoppedError):
        train(request, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == 2 else None)
    other = questions(tmp_path, 40, "other")
    with pytest.raises(InputError, match="the fingerprint of the replayed rows was"):
        train(replace(request, replay_corpus=other, resume=True))
    with pytest.raises(InputError, match=r"replay was 0\.2 and is now 0\.3"):
        train(replace(request, recipe=recipe.model_copy(update={"replay": 0.3}), resume=True))


def test_bundled_rows_are_replayed_by_default(settings: AdapterRecipe, tiny_corpus: Path, tmp_path: Path) -> None:
    recipe = settings.model_copy(update={"replay": 0.5})
    plan = plan_training(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe))
    rows = Corpus.open(tiny_corpus).counts["train"]
    assert plan.mixture["replay"] == rows
    assert plan.rows == 2 * rows
    assert plan.steps == 3 * -(-2 * rows // 5)


def test_bundled_rows_are_many_and_different() -> None:
    rows = [json.loads(line) for line in BUNDLED.read_text("utf-8").splitlines()]
    assert len({row["question"] for row in rows}) == len(rows) >= 100
    assert all(row["answer"].strip() for row in rows)


@pytest.mark.parametrize(
    ("changes", "corpus", "reason"),
    [
        ({}, "general", "--replay-corpus names rows for --replay, which is 0"),
        ({"replay": 0.1}, "missing", "missing"),
    ],
)
def test_replay_that_cannot_be_is_refused(
    settings: AdapterRecipe,
    tiny_corpus: Path,
    general: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    corpus: str,
    reason: str,
) -> None:
    request = TrainRequest(tiny_corpus, tmp_path / "adapter", settings.model_copy(update=changes))
    with pytest.raises(InputError, match=reason):
        plan_training(replace(request, replay_corpus=general.parent / corpus))
