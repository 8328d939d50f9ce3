"""A way to prepare rows in one line, through the public function."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.prepare import PrepareRequest, PrepareResult, prepare
from finetune.records import SPLITS, Example


@dataclass(frozen=True)
class Prepared:
    """A result and the corpus that it speaks of."""

    result: PrepareResult
    corpus: Corpus

    @property
    def rows(self) -> list[Example]:
        return [example for split in SPLITS for example in read_split(self.corpus, split)]

    @property
    def drops(self) -> list[dict[str, str]]:
        lines = (self.corpus.path / "drops.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def texts(self) -> list[str]:
        return [turn.text for example in self.rows for turn in example.turns]


Preparer = Callable[..., Prepared]


@pytest.fixture
def prepared(tmp_path: Path) -> Preparer:
    """`prepared(source, …, option=value)` prepares sources into a fresh corpus."""
    made = 0

    def run(*sources: Path | str, **options: Any) -> Prepared:
        nonlocal made
        made += 1
        out = options.pop("output_dir", tmp_path / f"corpus-{made}")
        result = prepare(PrepareRequest(out, sources=tuple(map(str, sources)), **options))
        return Prepared(result, Corpus.open(result.corpus))

    return run


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def questions(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is number {n}?", "answer": f"It is {n}."} for n in range(start, start + count)]
