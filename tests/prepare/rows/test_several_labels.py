"""Rows that may have several labels each: how they are read, and what later stages make of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finetune.corpus.view import show_corpus
from finetune.errors import ConfigError, InputError, RecordError, SlmtuneError
from finetune.prepare import PrepareRequest
from finetune.prepare.preview import preview
from finetune.records import SPLITS

from ...command import run
from ..conftest import Preparer, write_jsonl

ROWS: list[dict[str, Any]] = [
    {"text": "The saw is sharp and dear", "label": ["sharp", "dear"]},
    {"text": "The adze is blunt", "label": ["blunt"]},
    {"text": "The file lies in the drawer", "label": []},
]


def test_several_labels_are_listed_in_the_order_of_the_choices(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "train.jsonl", ROWS), instruction="What is the tool like?").rows
    assert [row.labels for row in made] == [("dear", "sharp"), ("blunt",), ()]
    assert [row.answer for row in made] == ["dear; sharp", "blunt", "none"]
    assert {(row.task, row.label, row.choices) for row in made} == {
        ("classification", None, ("blunt", "dear", "sharp"))
    }
    system = made[0].messages[0].content
    assert system.startswith("What is the tool like?\n")
    assert "blunt, dear, sharp" in system


@pytest.mark.parametrize("written", [list, json.dumps], ids=["list", "JSON"])
def test_column_labels_with_lists_is_the_label(written: Any, prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "labels": written(row["label"])} for row in ROWS]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows))
    assert [row.labels for row in made.rows] == [("dear", "sharp"), ("blunt",), ()]
    assert made.result.unused == []


def test_column_of_another_name_is_mapped(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "tags": row["label"]} for row in ROWS]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows), columns={"label": "tags"}).rows
    assert made[0].labels == ("dear", "sharp")


def test_text_is_divided_only_at_the_separator_that_is_asked_for(prepared: Preparer, tmp_path: Path) -> None:
    source = tmp_path / "train.csv"
    source.write_text(
        "text,label\nThe saw is sharp and dear,sharp; dear\nThe adze is blunt,blunt\nThe file lies here,\n"
    )
    made = prepared(source, label_separator=";").rows
    assert [row.labels for row in made] == [("dear", "sharp"), ("blunt",), ()]
    assert [row.label for row in prepared(source, on_error="skip").rows] == ["sharp; dear", "blunt"]


def test_separator_makes_even_single_labels_a_choice_of_several(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": f"The tool is {label}", "label": label} for label in ("sharp", "blunt")]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows), label_separator="|").rows
    assert [row.labels for row in made] == [("sharp",), ("blunt",)]


def test_files_of_a_source_agree_on_several_labels(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "train.jsonl", ROWS)
    write_jsonl(tmp_path / "in" / "test.jsonl", [{"text": "The chisel is sharp", "label": "sharp"}])
    made = prepared(tmp_path / "in").rows
    assert [row.labels for row in made if row.messages[1].content == "The chisel is sharp"] == [("sharp",)]


def test_pair_of_texts_may_have_several_labels(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"text_pair": "It was bought in May"} for row in ROWS]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows)).rows
    assert {(row.context, row.labels) for row in made} >= {("It was bought in May", ("dear", "sharp"))}


def test_class_numbers_in_lists_get_their_names(prepared: Preparer, tmp_path: Path) -> None:
    import datasets

    label = datasets.ClassLabel(names=["blunt", "dear", "sharp"])
    features = datasets.Features({"text": datasets.Value("string"), "labels": datasets.List(label)})
    rows = {"text": [row["text"] for row in ROWS], "labels": [[2, 1], [0], []]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    assert [row.labels for row in prepared(tmp_path / "train.parquet").rows] == [("dear", "sharp"), ("blunt",), ()]


FLAGS: list[dict[str, Any]] = [
    {"text": "The saw is sharp and dear", "Sharp": 1, "blunt": 0, "dear": "1"},
    {"text": "The adze is blunt", "Sharp": 0, "blunt": True, "dear": 0.0},
    {"text": "The file lies in the drawer", "Sharp": 0, "blunt": False, "dear": 0},
]


def test_columns_of_zeros_and_ones_are_labels_if_they_are_named(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", FLAGS)
    made = prepared(source, columns={"labels": "Sharp, blunt, dear"})
    assert [row.labels for row in made.rows] == [("Sharp", "dear"), ("blunt",), ()]
    assert made.result.unused == []
    (first,) = preview(
        PrepareRequest(tmp_path / "out", sources=(str(source),), columns={"labels": "Sharp,blunt"})
    ).sources
    assert first.groups[0].columns == ("labels=Sharp,blunt", "text")
    assert [each.name for each in first.groups[0].unused] == ["dear"]


def test_labels_of_a_domain_may_be_columns_of_zeros_and_ones(prepared: Preparer, tmp_path: Path) -> None:
    domain = write_domain(tmp_path / "tools", TRAITS)
    made = prepared(write_jsonl(tmp_path / "train.jsonl", FLAGS), domain=domain, columns={"labels": "Sharp,blunt,dear"})
    assert made.result.sources[0].shape == "tools traits"
    assert made.rows[0].labels == ("sharp", "dear")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"Sharp": -1, "blunt": 0, "dear": 0}, "'Sharp' is neither 0 nor 1"),
        ({"Sharp": 1, "blunt": 0}, "no column 'dear'"),
    ],
)
def test_value_that_is_neither_zero_nor_one_is_refused(
    row: dict[str, Any], says: str, prepared: Preparer, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", [*FLAGS, {"text": "The rasp is odd", **row}])
    with pytest.raises(RecordError, match=says):
        prepared(source, columns={"labels": "Sharp,blunt,dear"})
    assert prepared(source, columns={"labels": "Sharp,blunt,dear"}, on_error="skip").result.dropped != {}


def test_columns_of_zeros_and_ones_beside_a_text_are_not_lost(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": f"The tool {n} is here", "late": n % 2, "lost": str(n % 3 % 2), "year": n} for n in range(6)]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(RecordError, match=r"--map labels=late,lost\. To do without them: --ignore late --ignore lost"):
        prepared(source)
    assert {row.task for row in prepared(source, ignored=("late", "lost")).rows} == {"text"}
    assert prepared(source, columns={"labels": "late,lost"}).rows[1].labels == ("late", "lost")


def test_lists_of_labels_in_another_column_may_be_mapped_as_labels(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "tags": row["label"]} for row in ROWS]
    source = write_jsonl(tmp_path / "train.jsonl", rows)
    assert prepared(source, columns={"labels": "tags"}).rows[0].labels == ("dear", "sharp")
    with pytest.raises(ConfigError, match="a row has one label or several"):
        prepared(source, columns={"labels": "tags", "label": "tags"})


UNUSABLE = {
    "a label with a semicolon": ([*ROWS, {"text": "The rasp is odd", "label": ["odd; old"]}], "contains a semicolon"),
    "none beside no label": ([*ROWS, {"text": "The rasp is odd", "label": ["None"]}], "labels is called none"),
    "an empty label": ([*ROWS, {"text": "The rasp is odd", "label": ["", "sharp"]}], "'label' is empty"),
    "no label at all": ([*ROWS, {"text": "The rasp is odd", "label": None}], "'label' is null"),
    "an object": ([*ROWS, {"text": "The rasp is odd", "label": [{"name": "sharp"}]}], "'label' is an object"),
}


@pytest.mark.parametrize(("rows", "says"), UNUSABLE.values(), ids=UNUSABLE)
def test_labels_that_cannot_be_used_are_refused(
    rows: list[dict[str, Any]], says: str, prepared: Preparer, tmp_path: Path
) -> None:
    with pytest.raises((InputError, RecordError), match=says) as error:
        prepared(write_jsonl(tmp_path / "train.jsonl", rows))
    assert "rasp" not in str(error.value)


@pytest.mark.parametrize(("separator", "says"), [("", "must not be empty"), (";", "no source has such rows")])
def test_separator_that_cannot_be_used_is_refused(
    separator: str, says: str, prepared: Preparer, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", [{"question": "Where is it?", "answer": "In the drawer."}])
    with pytest.raises(SlmtuneError, match=says):
        prepared(source, label_separator=separator)


def test_two_sets_of_labels_for_one_text_are_a_conflict(prepared: Preparer, tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "label": ["sharp"]}, {**ROWS[1], "label": ["blunt", "blunt"]}]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows))
    assert made.result.dropped == {"conflicting_label": 2, "duplicate": 1}


def test_stratified_splits_share_the_rarest_label_of_each_row(prepared: Preparer, tmp_path: Path) -> None:
    tags = [["common"], ["common", "rare"], ["common", "seldom"], []]
    rows = [{"text": f"Tool number {n} is here", "label": tags[n % 4]} for n in range(80)]
    made = prepared(
        write_jsonl(tmp_path / "rows.jsonl", rows), stratify=True, split_ratio="0.8/0.1/0.1", near_duplicates=1.0
    )
    from finetune.corpus.store import read_split

    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        counts = Counter(row.labels or () for row in read_split(made.corpus, split))
        assert set(counts.values()) == {round(20 * share)}


def test_each_label_of_a_row_is_counted(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "train.jsonl", ROWS))
    assert made.result.labels == {"train": {"blunt": 1, "dear": 1, "sharp": 1}}
    assert [source.kept for source in made.result.sources] == [3]
    view = show_corpus(made.corpus.path)
    assert view.labels == {"train": {"blunt": 1, "dear": 1, "sharp": 1}}
    assert [sample.labels for sample in view.samples] == [("dear", "sharp"), ("blunt",), ()]
    shown = run("show", made.corpus.path, cwd=tmp_path).stdout
    assert "labels dear; sharp" in shown
    assert "labels none" in shown


def test_dry_run_names_the_labels(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", ROWS)
    (first,) = preview(PrepareRequest(tmp_path / "corpus", sources=(str(source),))).sources
    assert first.groups[0].labels == ("blunt", "dear", "sharp")


def test_prepared_corpus_keeps_its_labels(prepared: Preparer, tmp_path: Path) -> None:
    first = prepared(write_jsonl(tmp_path / "train.jsonl", ROWS))
    again = prepared(first.corpus.path)
    assert [(row.labels, row.choices) for row in again.rows] == [(row.labels, row.choices) for row in first.rows]


# --- tasks of a domain ------------------------------------------------------------------------------------------------


def write_domain(folder: Path, task: str, source: str = "") -> str:
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "text.jinja").write_text("{{ text }}\n", "utf-8")
    (folder / "recipe.yaml").write_text(
        "name: tools\ntitle: Tools\ndescription: Tools.\ncaution: None.\n"
        f"tasks: {{traits: {{prompt: prompts/text.jinja, {task}}}}}\nsources: []\nsample: [{source}]\n",
        "utf-8",
    )
    return str(folder)


TRAITS = "task: classification, choices: [sharp, blunt, dear], multi_label: true"


def test_task_of_a_domain_may_have_several_labels(prepared: Preparer, tmp_path: Path) -> None:
    domain = write_domain(tmp_path / "tools", TRAITS)
    made = prepared(write_jsonl(tmp_path / "train.jsonl", ROWS), domain=domain).rows
    assert [(row.labels, row.answer) for row in made] == [
        (("sharp", "dear"), "sharp; dear"),
        (("blunt",), "blunt"),
        ((), "none"),
    ]


def test_label_that_a_task_of_a_domain_lacks_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    sample = "{id: s, uri: s.jsonl, license: mit, task: traits}"
    domain = write_domain(tmp_path / "tools", TRAITS, sample)
    write_jsonl(tmp_path / "tools" / "s.jsonl", [*ROWS, {"text": "The rasp is odd", "label": ["odd"]}])
    with pytest.raises(RecordError, match="the label is not one of sharp, blunt, dear"):
        prepared(domain=domain, sample=True)


def test_source_of_a_domain_names_its_separator(prepared: Preparer, tmp_path: Path) -> None:
    sample = "{id: s, uri: s.jsonl, license: mit, task: traits, map: {label: tags}, label_separator: ',', labels: {b: blunt}}"
    rows = [{"text": "The adze is blunt and dear", "tags": "dear,b"}, {"text": "The saw is sharp", "tags": "sharp"}]
    write_jsonl(tmp_path / "tools" / "s.jsonl", rows)
    made = prepared(domain=write_domain(tmp_path / "tools", TRAITS, sample), sample=True).rows
    assert [row.labels for row in made] == [("blunt", "dear"), ("sharp",)]


def test_task_without_several_labels_is_not_used_for_rows_that_have_them(prepared: Preparer, tmp_path: Path) -> None:
    domain = write_domain(tmp_path / "tools", TRAITS.replace(", multi_label: true", ""))
    made = prepared(write_jsonl(tmp_path / "train.jsonl", ROWS), domain=domain)
    assert made.result.sources[0].shape == "classification"


def test_several_labels_without_choices_are_refused(tmp_path: Path) -> None:
    from finetune.recipe import load_domain

    with pytest.raises(ConfigError, match="multi_label is for classification tasks"):
        load_domain(write_domain(tmp_path / "tools", "task: qa, multi_label: true"))
