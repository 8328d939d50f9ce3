"""Rows in and out of a Corpus: a Hub data set repository of Parquet files, a card and the list of dropped rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import parquet

from finetune.artifacts import Corpus, writing
from finetune.records import SPLITS, Drop, Example, Message, Split

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("task", pa.string()),
        ("label", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("group", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
    ]
)
HUB_TASKS = {  # our tasks -> the Hub's task categories
    "classification": "text-classification",
    "qa": "question-answering",
    "summarization": "summarization",
    "translation": "translation",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def read_split(corpus: Corpus, split: Split) -> list[Example]:
    """The rows of a split in order; none where the split is empty."""
    file = corpus.data_file(split)
    if file is None:
        return []
    return [_from_row(row) for row in parquet.read_table(file, schema=SCHEMA).to_pylist()]


def write_corpus(
    out: Path,
    splits: Mapping[Split, Sequence[Example]],
    *,
    config: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    drops: Iterable[Drop] = (),
    card: str = "# Corpus\n",
    overwrite: bool = False,
) -> Corpus:
    """Write a corpus whole or not at all; the same rows and configuration give the same fingerprint.

    Args:
        out: where it goes.
        splits: the rows; a split without rows gets no file.
        config: what the corpus was made with, for the manifest.
        facts: further keys of the manifest, such as sources and counts of dropped rows.
        drops: rows that were left out.
        card: the text of the data set card; its metadata are made here.
        overwrite: replace a corpus that is there.

    Raises:
        OutputExistsError: `out` holds something and `overwrite` is false.
        InputError: `out` cannot be written.
    """
    filled = {split: splits[split] for split in SPLITS if splits.get(split)}
    with writing(out, Corpus, overwrite=overwrite) as writer:
        (writer.folder / "data").mkdir()
        for split, examples in filled.items():
            table = pa.Table.from_pylist([_to_row(example) for example in examples], schema=SCHEMA)
            parquet.write_table(table, writer.folder / file_name(split))
        with (writer.folder / "drops.jsonl").open("w", encoding="utf-8") as file:
            for drop in drops:
                file.write(
                    json.dumps({"id": drop.id, "step": drop.step, "reason": drop.reason}, ensure_ascii=False) + "\n"
                )
        (writer.folder / "README.md").write_text(f"---\n{_metadata(filled)}---\n\n{card}", "utf-8")
        writer.manifest["config"] = dict(config or {})
        writer.manifest["counts"] = {split: len(splits.get(split, ())) for split in SPLITS}
        writer.manifest["by_task"] = count_tasks(filled)
        writer.manifest |= facts or {}
    return Corpus.open(out)


def file_name(split: Split) -> str:
    """The Parquet file of a split, relative to the corpus."""
    return f"data/{split}-00000-of-00001.parquet"


def count_tasks(splits: Mapping[Split, Sequence[Example]]) -> dict[str, int]:
    """Rows a task, over all splits."""
    return dict(sorted(Counter(example.task for examples in splits.values() for example in examples).items()))


def _metadata(splits: Mapping[Split, Sequence[Example]]) -> str:
    """The YAML that the Hub and `datasets.load_dataset` read."""
    licenses = sorted({example.license or "unknown" for examples in splits.values() for example in examples})
    total = sum(map(len, splits.values()))
    categories = sorted({HUB_TASKS.get(task, "text-generation") for task in count_tasks(splits)})
    data = {
        "license": licenses[0] if len(licenses) == 1 else licenses,
        "task_categories": categories,
        "size_categories": [next((name for limit, name in SIZES if total < limit), "n>1M")],
        "tags": ["slmtune"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": split, "path": file_name(split)} for split in splits]}
        ],
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _to_row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "messages": [{"role": message.role, "content": message.content} for message in example.messages],
        "task": example.task,
        "label": example.label,
        "choices": list(example.choices) or None,
        "group": example.group,
        "source": example.source,
        "license": example.license,
    }


def _from_row(row: Mapping[str, Any]) -> Example:
    return Example(
        id=row["id"],
        messages=tuple(Message(turn["role"], turn["content"]) for turn in row["messages"]),
        task=row["task"],
        label=row["label"],
        choices=tuple(row["choices"] or ()),
        group=row["group"],
        source=row["source"] or "",
        license=row["license"] or "",
    )
