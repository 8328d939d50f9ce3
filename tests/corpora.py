"""Corpora whose rows are all in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.artifacts import Corpus, write_jsonl
from finetune.corpus.store import schema_of, to_table, writing_corpus
from finetune.records import SPLITS, Drop, Example, Split


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
    """Write a corpus; `facts` are further keys of its manifest, `card` the text of its card without the metadata."""
    schema = schema_of(example for examples in splits.values() for example in examples)
    with writing_corpus(out, overwrite=overwrite, schema=schema) as writer:
        for split in SPLITS:
            writer.write(split, to_table(splits.get(split, ())))
        write_jsonl(writer.folder / "drops.jsonl", map(asdict, drops))
        writer.manifest["config"] = dict(config or {})
        writer.manifest.update(facts or {})
        writer.finish(card, None)
    return Corpus.open(out)
