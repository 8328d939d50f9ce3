"""The recipe of the tagger: its rows are marked as they read, it learns no name that the benchmark asks for, and it trains."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from finetune.scrub.own_tagger import OwnTagger

from .command import ROOT
from .encoders import write_encoder

FOLDER = ROOT / "examples" / "tagger"


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def rows(seed: int, count: int = 200) -> list[Any]:
    return list(runpy.run_path(str(FOLDER / "generate.py"))["generate"](count, seed))


def test_rows_follow_from_the_seed_and_are_marked_where_values_stand() -> None:
    made = rows(0)
    assert [(row.text, row.spans) for row in made] == [(row.text, row.spans) for row in rows(0)]
    assert [row.text for row in made] != [row.text for row in rows(1)]
    for row in made:
        ends = [0, *(end for _, end, _ in row.spans)]
        assert all(before <= start < end for before, (start, end, _) in zip(ends, row.spans, strict=False))
        assert all(not row.text[start].isspace() and not row.text[end - 1].isspace() for start, end, _ in row.spans)
    assert {label for row in made for _, _, label in row.spans} == {"NAME", "LOCATION", "ADDRESS", "ORGANISATION"}


def test_every_template_and_every_form_of_an_address_can_be_filled() -> None:
    made = runpy.run_path(str(FOLDER / "generate.py"))
    values = made["Values"](Random(0))
    assert not {slot for line in made["read_templates"]() for slot in made["SLOT"].findall(line)} - values.slots.keys()
    for form in values.places.forms:
        assert not set("{}<>|") & set(values.places.fill(form))


def test_no_drug_or_disease_of_the_benchmark_is_learnt() -> None:
    read_list = runpy.run_path(str(FOLDER / "words.py"))["read_list"]
    asked = (ROOT / "benchmarks" / "drugs_and_diseases.txt").read_text("utf-8").lower().splitlines()
    assert not set(asked) & {name.lower() for kind in ("medicines", "conditions") for name in read_list(kind)}


@pytest.mark.slow
def test_recipe_writes_a_tagger_that_slmtune_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_encoder(tmp_path / "base", "bert", max_position_embeddings=160)
    out = tmp_path / "tagger"
    arguments = ["--out", str(out), "--base", str(base), "--rows", "32", "--validation-rows", "4"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    runpy.run_path(str(FOLDER / "train.py"), run_name="__main__")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.onnx", "tagger.json", "tokenizer.json"]
    assert len(OwnTagger(out)(["José García\nLange Gasse 7, Zürich", "nothing " * 300])) == 2
    assert "| 4 invented rows |" in (out / "README.md").read_text("utf-8")
