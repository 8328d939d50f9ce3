"""Every data set that a recipe reads from the Hub, in the shape it has there, becomes the rows it should."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.prepare.sources.remote import URI
from finetune.recipe import SourceRecipe, domain_names, load_domain
from finetune.records import SPLITS, Example

from ...command import python
from ...hub.local_hub import LocalHub
from .hub_shapes import BANKING77, HUB_SHAPES, MEDMCQA, HubShape

# A process of its own: the client takes the Hub's address from the environment when it is imported.
SCRIPT = """
import json, sys
from pathlib import Path
from finetune.errors import SlmtuneError
from finetune.prepare import PrepareRequest, prepare

answers = []
for given in json.loads(sys.argv[1]):
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        answers.append({"dropped": prepare(PrepareRequest(Path(tuples.pop("output_dir")), **tuples)).dropped})
    except SlmtuneError as error:
        answers.append({"error": str(error)})
print(json.dumps(answers))
"""


def recipe_of(shape: HubShape) -> SourceRecipe:
    return next(source for source in load_domain(shape.domain).recipe.sources if source.id == shape.source)


def serve(hub: LocalHub, shape: HubShape, folder: Path) -> None:
    match = URI.fullmatch(recipe_of(shape).uri)
    assert match is not None
    shape.write(folder)
    if shape.ref is not None:
        empty = folder.parent / f"{folder.name}-main"
        empty.mkdir()
        (empty / "script.py").write_text("raise SystemExit('ran')", "utf-8")
        hub.serve("dataset", match["repo"], empty)
        assert match["revision"] == shape.ref
    hub.serve("dataset", match["repo"], folder, ref=shape.ref)


def prepare_all(hub: LocalHub, folder: Path, requests: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One process for all: what was dropped, or the error, by request; corpora lie in `folder` by their number."""
    given = [
        {"output_dir": str(folder / str(number)), "accept_noncommercial": True, "recipe_evals": False, **request}
        for number, request in enumerate(requests)
    ]
    environment = {**os.environ, **hub.environ(folder / "home")}
    done = python("-c", SCRIPT, json.dumps(given), cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def rows_of(folder: Path) -> list[tuple[str, Example]]:
    corpus = Corpus.open(folder)
    return [(split, row) for split in SPLITS for row in read_split(corpus, split)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], tuple[dict[str, Any], Path]]:
    """Domain and source -> the answer to `--domain DOMAIN --source URI`, and where the corpus lies."""
    folder = tmp_path_factory.mktemp("hub-shapes")
    with LocalHub() as hub:
        for number, shape in enumerate(HUB_SHAPES):
            serve(hub, shape, folder / "repos" / str(number))
        requests = [{"domain": shape.domain, "sources": [recipe_of(shape).uri]} for shape in HUB_SHAPES]
        answers = prepare_all(hub, folder, requests)
    return {
        (shape.domain, shape.source): (answer, folder / str(number))
        for number, (shape, answer) in enumerate(zip(HUB_SHAPES, answers, strict=True))
    }


def test_every_source_on_the_hub_has_a_shape() -> None:
    sources = {
        (name, source.id) for name in domain_names() for source in load_domain(name).recipe.sources if source.is_remote
    }
    assert {(shape.domain, shape.source) for shape in HUB_SHAPES} == sources


@pytest.mark.parametrize("shape", HUB_SHAPES, ids=lambda shape: shape.source)
def test_rows_of_the_hub_become_the_rows_they_should(
    shape: HubShape, prepared: Mapping[tuple[str, str], tuple[dict[str, Any], Path]]
) -> None:
    answer, folder = prepared[shape.domain, shape.source]
    assert answer == {"dropped": shape.dropped}
    recipe = recipe_of(shape)
    task = load_domain(shape.domain).recipe.tasks[recipe.task]
    rows = {row.prompt[-1].content: (split, row) for split, row in rows_of(folder)}
    assert {question: row.answer for question, (_, row) in rows.items()} == {
        wanted.question: wanted.answer for wanted in shape.wanted
    }
    for wanted in shape.wanted:
        split, row = rows[wanted.question]
        assert split in wanted.splits, wanted.question
        assert row.label == (wanted.answer if task.choices else None)
        assert (row.task, row.choices, row.license, row.source) == (task.task, task.choices, recipe.license, recipe.id)
        assert [turn.content for turn in row.prompt[:-1]] == [task.system]


def test_groups_stay_together(prepared: Mapping[tuple[str, str], tuple[dict[str, Any], Path]]) -> None:
    rows = rows_of(prepared["health", "medquad"][1])
    assert {row.group for _, row in rows} == {"pages/1"}
    assert len({split for split, _ in rows}) == 1
    assert {row.group for _, row in rows_of(prepared["finance", "filings"][1])} == {"ACME"}


def test_class_labels_are_read_with_and_without_their_names(tmp_path: Path) -> None:
    """As numbers where the Parquet file says no names, and by name where it does: the answers are the same."""
    names = load_domain("customer-service").recipe.tasks["banking77"].choices
    unnamed = HubShape("health", "medmcqa", MEDMCQA.files, MEDMCQA.wanted, MEDMCQA.card)
    named = HubShape("customer-service", "banking77", BANKING77.files, (), BANKING77.card, {"label": names})
    shapes = (unnamed, named)
    with LocalHub() as hub:
        for shape in shapes:
            serve(hub, shape, tmp_path / shape.source)
        requests = [{"domain": shape.domain, "sources": [recipe_of(shape).uri]} for shape in shapes]
        assert prepare_all(hub, tmp_path, requests) == [{"dropped": {}}] * 2
    for number, wanted in enumerate((MEDMCQA.wanted, BANKING77.wanted)):
        found = {row.prompt[-1].content: row.label for _, row in rows_of(tmp_path / str(number))}
        assert found == {row.question: row.answer for row in wanted}


def test_tasks_and_sources_that_are_off_are_read_where_the_user_asks(tmp_path: Path) -> None:
    requests: list[dict[str, Any]] = [
        {"domain": "finance", "accept_noncommercial": False},
        {"domain": "finance", "accept_noncommercial": False, "include": ["fiqa"]},
        {"domain": "finance", "tasks": ["topics", "stance"]},
        {"domain": "finance", "tasks": ["headlines"]},
        {"domain": "health", "tasks": ["exam"]},
        {"domain": "finance", "tasks": ["stance"], "accept_noncommercial": False},
    ]
    with LocalHub() as hub:
        for shape in HUB_SHAPES:
            serve(hub, shape, tmp_path / "repos" / shape.source)
        answers = prepare_all(hub, tmp_path, requests)
    read = [
        sorted({row.source for _, row in rows_of(tmp_path / str(number))}) if "error" not in answer else answer["error"]
        for number, answer in enumerate(answers)
    ]
    assert read[:3] == [["tfns"], ["fiqa", "tfns"], ["fomc", "tfn-topics"]]
    assert "--include gold-headlines" in read[3]
    assert read[4] == ["medmcqa", "medqa"]
    assert "--accept-noncommercial" in read[5]
    licenses = [Corpus.open(tmp_path / str(number)).manifest["license"] for number in (0, 1, 2, 4)]
    assert licenses == ["mit", "unknown", "cc-by-nc-4.0", "cc-by-sa-4.0"]
