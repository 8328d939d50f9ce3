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
from finetune.records import SPLITS, Example, Message, Split, ToolCall

TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
CALL = pa.struct([("id", pa.string()), ("type", pa.string()), ("function", FUNCTION)])
TOOL_TURN = pa.struct([*TURN, ("tool_calls", pa.list_(CALL)), ("tool_call_id", pa.string()), ("name", pa.string())])
SCHEMA = pa.schema(  # of most corpora; `schema_of` adds the columns of RARE that some rows need
    [
        ("id", pa.string()),
        ("messages", pa.list_(TURN)),
        ("task", pa.string()),
        ("label", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("group", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
    ]
)
RARE = {"tools": pa.string(), "labels": pa.list_(pa.string()), "context": pa.string()}
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
    return list(iter_split(corpus, split))


def iter_split(corpus: Corpus, split: Split) -> Iterator[Example]:
    """The rows of a split, in order, of which few are in memory at a time."""
    for file in corpus.files(split):
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(ROW_GROUP):
                yield from map(to_example, batch.to_pylist())


def read_table(corpus: Corpus, split: Split, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a split as they are stored, with all columns or those of `columns` that it has."""
    tables = [parquet.read_table(file, columns=columns) for file in corpus.files(split)]
    return pa.concat_tables(tables, promote_options="permissive") if tables else SCHEMA.empty_table()


class CorpusWriter:
    """Writes the rows of a corpus in batches; `folder` is for its other files, `manifest` for further facts."""

    def __init__(self, writer: ArtifactWriter, schema: pa.Schema) -> None:
        self.folder, self.manifest, self.schema = writer.folder, writer.manifest, schema
        self.counts: Counter[str] = Counter()
        self.by_task: Counter[str] = Counter()
        self.licenses: set[str] = set()
        self._open: dict[Split, parquet.ParquetWriter] = {}
        self._waiting: dict[Split, list[pa.Table]] = {}
        (self.folder / "data").mkdir()

    def write(self, split: Split, table: pa.Table, *, are_canaries: bool = False) -> None:
        """Add rows to a split; the size of row groups does not depend on the size of the batches.

        Canaries count as rows, but their task and licence are not those of the corpus.
        """
        if not table.num_rows:
            return
        if table.schema != self.schema:
            table = pa.concat_tables([self.schema.empty_table(), table], promote_options="permissive")
        self.counts[split] += table.num_rows
        if not are_canaries:
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
            self._open[split] = parquet.ParquetWriter(self.folder / file_name(split), self.schema)
        return self._open[split]


@contextmanager
def writing_corpus(out: Path, *, overwrite: bool, schema: pa.Schema = SCHEMA) -> Iterator[CorpusWriter]:
    """Write a corpus whole or not at all, with the columns of `schema`; the caller finally calls `finish`.

    Raises:
        OutputExistsError: `out` is not empty and `overwrite` is false.
        InputError: `out` cannot be written.
    """
    with writing(out, Corpus, overwrite=overwrite) as writer:
        yield CorpusWriter(writer, schema)


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


def schema_of(examples: Iterable[Example]) -> pa.Schema:
    """`SCHEMA` with the columns that some row needs: those of `RARE`, `rejected`, and wider turns if a row uses tools."""
    needed: set[str] = set()
    for example in examples:
        needed |= {"tools"} if example.uses_tools else set()
        needed |= {"labels"} if example.labels is not None else set()
        needed |= {"context"} if example.context is not None else set()
        needed |= {"rejected"} if example.rejected else set()
    turns = pa.list_(TOOL_TURN if "tools" in needed else TURN)
    fields = [field.with_type(turns) if field.name == "messages" else field for field in SCHEMA]
    rare = {**RARE, "rejected": turns}
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in rare.items() if name in needed)])


def to_columns(examples: Sequence[Example]) -> dict[str, list[Any]]:
    """The columns of examples, also those that only some corpora have."""
    return {
        "id": [example.id for example in examples],
        "messages": [list(map(_to_row, example.messages)) for example in examples],
        "task": [example.task for example in examples],
        "label": [example.label for example in examples],
        "choices": [list(example.choices) or None for example in examples],
        "group": [example.group for example in examples],
        "source": [example.source for example in examples],
        "license": [example.license for example in examples],
        "tools": [example.tools for example in examples],
        "rejected": [list(map(_to_row, example.rejected)) or None for example in examples],
        "labels": [None if example.labels is None else list(example.labels) for example in examples],
        "context": [example.context for example in examples],
    }


def to_table(examples: Iterable[Example]) -> pa.Table:
    """Examples as rows of the Parquet files."""
    rows = list(examples)
    schema = schema_of(rows)
    return pa.table({name: values for name, values in to_columns(rows).items() if name in schema.names}, schema=schema)


def to_example(row: Mapping[str, Any]) -> Example:
    """A row of the Parquet files as an example; columns that it lacks count as empty."""
    return Example(
        id=row["id"],
        messages=tuple(map(_to_message, row["messages"])),
        task=row["task"],
        label=row.get("label"),
        choices=tuple(row.get("choices") or ()),
        group=row.get("group"),
        source=row.get("source") or "",
        license=row.get("license") or "",
        tools=row.get("tools"),
        rejected=tuple(map(_to_message, row.get("rejected") or ())),
        labels=None if row.get("labels") is None else tuple(row["labels"]),
        context=row.get("context"),
    )


def _to_row(turn: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    if turn.role == "tool":
        row |= {"tool_call_id": turn.tool_call_id, "name": turn.name}
    return row


def _to_message(row: Mapping[str, Any]) -> Message:
    if len(row) == 2:  # as nearly always
        return Message(row["role"], row["content"])
    calls = tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"], call["id"])
        for call in row.get("tool_calls") or ()
    )
    return Message(row["role"], row["content"], calls, row.get("tool_call_id"), row.get("name"))
