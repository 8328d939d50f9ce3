"""Writes and reads a Corpus: a Hub data set repository of Parquet files, a card and the list of dropped rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import parquet

from finetune.artifacts import ArtifactWriter, Corpus, writing
from finetune.records import SPLITS, Example, Message, Split

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
ROW_GROUP = 10_000  # rows: a few megabytes, so readers do not have to load a whole split
HUB_TASKS = {  # our tasks -> the Hub's task categories
    "classification": "text-classification",
    "qa": "question-answering",
    "summarization": "summarization",
    "translation": "translation",
}
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def read_split(corpus: Corpus, split: Split) -> list[Example]:
    """The rows of a split, in order; none if the split is empty."""
    tables = (parquet.read_table(file, schema=SCHEMA) for file in corpus.files(split))
    return [to_example(row) for table in tables for row in table.to_pylist()]


class CorpusWriter:
    """Writes the rows of a corpus in batches; `folder` is for its other files, `manifest` for further facts."""

    def __init__(self, writer: ArtifactWriter) -> None:
        self.folder, self.manifest = writer.folder, writer.manifest
        self.counts: Counter[str] = Counter()
        self.by_task: Counter[str] = Counter()
        self.licenses: set[str] = set()
        self._open: dict[Split, parquet.ParquetWriter] = {}
        self._waiting: dict[Split, list[pa.Table]] = {}
        (self.folder / "data").mkdir()

    def write(self, split: Split, table: pa.Table) -> None:
        """Add rows to a split; the size of row groups does not depend on the size of the batches."""
        if not table.num_rows:
            return
        self.counts[split] += table.num_rows
        self.by_task.update(table["task"].to_pylist())
        self.licenses |= {license or "unknown" for license in table["license"].unique().to_pylist()}
        waiting = [*self._waiting.get(split, []), table]
        if sum(map(len, waiting)) >= ROW_GROUP:
            joined = pa.concat_tables(waiting).combine_chunks()
            whole = len(joined) // ROW_GROUP * ROW_GROUP
            self._file(split).write_table(joined.slice(0, whole), row_group_size=ROW_GROUP)
            waiting = [joined.slice(whole)] if whole < len(joined) else []
        self._waiting[split] = waiting

    def finish(self, card: str, license: str | None) -> None:
        """Write the remaining rows, and the card with its metadata."""
        for split, waiting in self._waiting.items():
            file = self._file(split)
            if waiting:
                file.write_table(pa.concat_tables(waiting).combine_chunks())
            file.close()
        splits = [split for split in SPLITS if self.counts[split]]
        metadata = _metadata(splits, self.counts.total(), self.by_task, [license] if license else sorted(self.licenses))
        (self.folder / "README.md").write_text(f"---\n{metadata}---\n\n{card}", "utf-8")
        self.manifest["counts"] = {split: self.counts[split] for split in SPLITS}
        self.manifest["by_task"] = dict(sorted(self.by_task.items()))

    def _file(self, split: Split) -> parquet.ParquetWriter:
        if split not in self._open:
            self._open[split] = parquet.ParquetWriter(self.folder / file_name(split), SCHEMA)
        return self._open[split]


@contextmanager
def writing_corpus(out: Path, *, overwrite: bool) -> Iterator[CorpusWriter]:
    """Write a corpus whole or not at all; the caller finally calls `finish`.

    Raises:
        OutputExistsError: `out` is not empty and `overwrite` is false.
        InputError: `out` cannot be written.
    """
    with writing(out, Corpus, overwrite=overwrite) as writer:
        yield CorpusWriter(writer)


def file_name(split: Split) -> str:
    """The Parquet file of a split, relative to the corpus."""
    return f"data/{split}-00000-of-00001.parquet"


def _metadata(splits: Sequence[Split], total: int, by_task: Mapping[str, int], licenses: Sequence[str]) -> str:
    """The YAML that the Hub and `datasets.load_dataset` read."""
    categories = sorted({HUB_TASKS.get(task, "text-generation") for task in by_task})
    data = {
        "license": licenses[0] if len(licenses) == 1 else list(licenses),
        "task_categories": categories,
        "size_categories": [next((name for limit, name in SIZES if total < limit), "n>1M")],
        "tags": ["slmtune"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": split, "path": file_name(split)} for split in splits]}
        ],
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def to_table(examples: Iterable[Example]) -> pa.Table:
    """Examples as rows of the Parquet files."""
    rows = [
        {
            "id": example.id,
            "messages": [{"role": message.role, "content": message.content} for message in example.messages],
            "task": example.task,
            "label": example.label,
            "choices": list(example.choices) or None,
            "group": example.group,
            "source": example.source,
            "license": example.license,
        }
        for example in examples
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def to_example(row: Mapping[str, Any]) -> Example:
    """A row of the Parquet files as an example; columns that were not read count as empty."""
    return Example(
        id=row["id"],
        messages=tuple(Message(turn["role"], turn["content"]) for turn in row["messages"]),
        task=row["task"],
        label=row.get("label"),
        choices=tuple(row.get("choices") or ()),
        group=row.get("group"),
        source=row.get("source") or "",
        license=row.get("license") or "",
    )
