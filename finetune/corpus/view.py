"""Shows a corpus: counts, dropped rows, lengths and sample rows, with never more than a batch of rows in memory.

Samples show the text of rows, because the user asks to see them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from finetune.artifacts import Corpus
from finetune.cards.corpus_facts import by_size
from finetune.corpus.lengths import Lengths, count_words, measure_rows, token_length
from finetune.corpus.open import open_corpus
from finetune.corpus.store import to_example
from finetune.errors import HubError, InputError, OfflineError
from finetune.models.tokenizer import find_tokenizer
from finetune.recipe import load_adapter_recipe
from finetune.recipe.option_fields import check
from finetune.recipe.options import SEED, ShowOptions
from finetune.records import SPLITS, Example, Message, Split

MEASURED = (
    2_000  # rows; the 95th percentile is then within about one percentile point (sqrt(0.95 · 0.05 / 2000) = 0.5 %)
)
COUNTED_AT_ONCE, READ_AT_ONCE = 65_536, 1_024  # rows in memory, without and with their text
COUNTED = ("task", "source", "license", "label")
READ = ("id", "messages", "task", "label", "labels", "source", "tools", "rejected")


@dataclass(frozen=True)
class SourceCount:
    """The number of rows of a source; `uri` and `revision` come from the manifest."""

    id: str
    rows: int
    license: str
    uri: str | None
    revision: str | None


@dataclass(frozen=True)
class DropCount:
    """The number of rows that a step of preparation dropped for one reason."""

    step: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Sample:
    """A row, with its text."""

    id: str
    split: Split
    task: str
    source: str
    label: str | None
    labels: tuple[str, ...] | None
    messages: tuple[Message, ...]
    tools: str | None
    rejected: tuple[Message, ...]


@dataclass(frozen=True)
class CorpusView:
    """A summary of a corpus. `labels` counts the labels per source; `lengths` is None without rows."""

    corpus: Path
    domain: str | None
    fingerprint: str
    rows: int
    splits: Mapping[Split, int]
    tasks: Mapping[str, int]
    sources: tuple[SourceCount, ...]
    labels: Mapping[str, Mapping[str, int]]
    drops: tuple[DropCount, ...]
    lengths: Lengths | None
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def show_corpus(
    corpus_path: Path | str, *, model: str | None = None, samples: int = ShowOptions.samples, seed: int = SEED
) -> CorpusView:
    """Summarise a corpus.

    Args:
        corpus_path: the folder of the corpus, or its address.
        model: preset, Hub id or folder whose tokenizer measures lengths; only the tokenizer is downloaded. None: the
            default model of the corpus's domain, if its tokenizer is already on this machine.
        samples: number of rows to show per task.
        seed: selects the rows to show and, if there are more than `MEASURED`, the rows to measure.

    Raises:
        MissingStageError: there is no corpus.
        ArtifactError: the corpus is damaged.
        InputError: the model is invalid. A model that is merely unavailable is not an error: lengths are then in words,
            and a note says so.
    """
    check(ShowOptions(samples=samples))
    corpus = open_corpus(corpus_path)
    counts, positions, by_label = _count(corpus, samples, seed)
    lengths, notes = _measure(corpus, positions.to_measure, sum(counts.values()), model)
    for (_, _, source, _, label), rows in counts.items():
        if label is not None:
            by_label[source][label] += rows
    return CorpusView(
        corpus=corpus.path,
        domain=corpus.manifest.get("domain"),
        fingerprint=corpus.fingerprint,
        rows=sum(counts.values()),
        splits={split: sum(rows for key, rows in counts.items() if key[0] == split) for split in SPLITS},
        tasks=by_size(_sum(counts, 1)),
        sources=_sources(corpus, counts),
        labels={source: by_size(labels) for source, labels in sorted(by_label.items()) if labels},
        drops=_drops(corpus),
        lengths=lengths,
        samples=tuple(_to_sample(split, example) for split, example in _read(corpus, positions.to_show)),
        notes=notes,
    )


def draw_samples(corpus: Corpus, samples: int, seed: int) -> Iterator[tuple[Split, Example]]:
    """The rows that `show_corpus` shows, in the order of the corpus."""
    _, positions, _ = _count(corpus, samples, seed)
    return _read(corpus, positions.to_show)


Key = tuple[Split, str, str, str, str | None]  # split and COUNTED


@dataclass(frozen=True)
class _Positions:
    """Ascending positions of the rows to measure and to show, counted across all files of all splits."""

    to_measure: list[int]
    to_show: list[int]


def _count(corpus: Corpus, samples: int, seed: int) -> tuple[Counter[Key], _Positions, defaultdict[str, Counter[str]]]:
    """Count rows and sample some in one pass over the short columns; rows with several labels are counted by source and label.

    Every row draws a random number, and the rows with the smallest numbers are selected: as fair as shuffling, and only
    the smallest numbers so far have to be kept.
    """
    counts: Counter[Key] = Counter()
    several: defaultdict[str, Counter[str]] = defaultdict(Counter)
    random = np.random.default_rng(abs(seed))
    to_measure, by_task, start = _Smallest(MEASURED), defaultdict[str, _Smallest](lambda: _Smallest(samples)), 0
    for split, file in _files(corpus):
        with parquet.ParquetFile(file) as opened:
            columns = [name for name in (*COUNTED, "labels") if name in opened.schema_arrow.names]
            for batch in opened.iter_batches(COUNTED_AT_ONCE, columns=columns):
                if "labels" in columns:
                    for source, labels in zip(*(batch[name].to_pylist() for name in ("source", "labels")), strict=True):
                        several[source].update(labels or ())
                grouped = pa.Table.from_batches([batch]).group_by(list(COUNTED)).aggregate([([], "count_all")])
                for row in grouped.to_pylist():
                    counts[split, row["task"], row["source"], row["license"], row["label"]] += row["count_all"]
                numbers, positions = random.random(len(batch)), np.arange(start, start + len(batch))
                to_measure.offer(numbers, positions)
                tasks = batch.column("task").to_numpy(zero_copy_only=False)
                for task in dict.fromkeys(tasks):
                    by_task[task].offer(numbers[tasks == task], positions[tasks == task])
                start += len(batch)
    to_show = sorted(position for smallest in by_task.values() for position in smallest.sort())
    return counts, _Positions(to_measure.sort(), to_show), several


class _Smallest:
    """Keeps the positions of the `size` smallest numbers so far."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.numbers, self.positions = np.empty(0), np.empty(0, dtype=np.int64)

    def offer(self, numbers: np.ndarray[Any, Any], positions: np.ndarray[Any, Any]) -> None:
        """Consider more rows."""
        numbers = np.concatenate([self.numbers, numbers])
        best = np.argsort(numbers, kind="stable")[: self.size]
        self.numbers, self.positions = numbers[best], np.concatenate([self.positions, positions])[best]

    def sort(self) -> list[int]:
        """The positions, ascending."""
        return sorted(self.positions.tolist())


def _read(corpus: Corpus, positions: list[int]) -> Iterator[tuple[Split, Example]]:
    """The rows at ascending positions; row groups without any of them are not read."""
    rows, start = np.asarray(positions, dtype=np.int64), 0
    for split, file in _files(corpus):
        with parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20) as opened:
            for group in range(opened.num_row_groups):
                end = start + opened.metadata.row_group(group).num_rows
                if ((rows >= start) & (rows < end)).any():
                    columns = [name for name in READ if name in opened.schema_arrow.names]
                    for batch in opened.iter_batches(READ_AT_ONCE, row_groups=[group], columns=columns):
                        here = rows[(rows >= start) & (rows < start + len(batch))] - start
                        for row in batch.take(pa.array(here)).to_pylist():
                            yield split, to_example(row)
                        start += len(batch)
                start = end


def _files(corpus: Corpus) -> Iterator[tuple[Split, Path]]:
    return ((split, file) for split in SPLITS for file in corpus.files(split))


def _measure(
    corpus: Corpus, positions: list[int], rows: int, model: str | None
) -> tuple[Lengths | None, tuple[str, ...]]:
    """Lengths in tokens or, if there is no tokenizer, in words, with the reason as a note."""
    name = model or load_adapter_recipe(corpus.manifest.get("domain")).model

    def examples() -> Iterator[Example]:
        return (example for _, example in _read(corpus, positions))

    try:
        measure = token_length(find_tokenizer(name, fetch=model is not None))
    except (OfflineError, HubError) as error:
        why = str(error)
    else:
        try:
            return measure_rows(examples(), measure, rows=rows, unit="tokens", tokenizer=name), ()
        except InputError as error:  # the chat template rejects a row, on which training would stop
            why = str(error)
    lengths = measure_rows(examples(), count_words, rows=rows, unit="words", tokenizer=None)
    return lengths, (f"Lengths are in words, not tokens. {why}",)


def _sources(corpus: Corpus, counts: Mapping[Key, int]) -> tuple[SourceCount, ...]:
    licenses: defaultdict[str, set[str]] = defaultdict(set)
    for _, _, source, license_, _ in counts:
        licenses[source].add(license_ or "unknown")
    facts = {source.get("id"): source for source in corpus.manifest.get("sources", ())}
    return tuple(
        SourceCount(
            id=source,
            rows=rows,
            license=", ".join(sorted(licenses[source])),
            uri=facts.get(source, {}).get("uri"),
            revision=facts.get(source, {}).get("revision"),
        )
        for source, rows in by_size(_sum(counts, 2)).items()
    )


def _drops(corpus: Corpus) -> tuple[DropCount, ...]:
    """Count drops.jsonl line by line, because it may be as long as the corpus."""
    counts: Counter[tuple[str, str]] = Counter()
    file = corpus.path / "drops.jsonl"
    if file.is_file():
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                drop = json.loads(line)
                counts[drop["step"], drop["reason"]] += 1
    return tuple(DropCount(step, reason, rows) for (step, reason), rows in by_size(counts).items())


def _sum(counts: Mapping[Key, int], part: int) -> Counter[str]:
    sums: Counter[str] = Counter()
    for key, rows in counts.items():
        sums[key[part] or ""] += rows
    return sums


def _to_sample(split: Split, example: Example) -> Sample:
    return Sample(
        id=example.id,
        split=split,
        task=example.task,
        source=example.source,
        label=example.label,
        labels=example.labels,
        messages=example.messages,
        tools=example.tools,
        rejected=example.rejected,
    )
