"""The last stage: writes the corpus from the shards, one block at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetune.artifacts import write_jsonl
from finetune.canary_key import CANARY_SOURCE, write_key
from finetune.cards.corpus_facts import CorpusFacts, NamedHit, SourceFacts, describe_encodings
from finetune.cards.corpus_page import corpus_page
from finetune.cards.dataset_card import card_text
from finetune.corpus.store import SCHEMA, CorpusWriter, to_table, writing_corpus
from finetune.errors import InputError
from finetune.prepare.canaries import draw_canaries, plant
from finetune.prepare.drops import Drops, sum_counts, sum_unused
from finetune.prepare.inputs import Inputs
from finetune.prepare.request import PrepareRequest, Progress
from finetune.prepare.row_table import RowTable
from finetune.prepare.rows.part import Part
from finetune.prepare.rows.shapes import Shape
from finetune.prepare.select import Cluster, Selection
from finetune.prepare.shards import Shard, number_rows, read_columns
from finetune.prepare.sources.source import HUB, Source
from finetune.recipe import CUSTOM_DOMAIN, Domain
from finetune.recipe.options import DEFAULT_RATIO, PrepareOptions
from finetune.records import SPLITS, Drop, Unused
from finetune.scrub import describe_tagger
from finetune.storage.address import is_address, public_address

CANARY_NOTE = (
    f"Some rows of the training split ({CANARY_SOURCE}) are canaries: random secrets that belong to nobody, planted to measure "
    "what a model memorises."
)
WORD_BOUNDS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 2**31)  # of the histogram of lengths


@dataclass(frozen=True)
class RowCounts:
    """The rows of each source, and how many of them have each label; a row with several labels counts for each."""

    rows: Counter[str] = field(default_factory=Counter)
    labels: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, rows: pa.Table) -> None:
        """Count rows of the corpus."""
        several = rows["labels"].to_pylist() if "labels" in rows.schema.names else [None] * len(rows)
        for source, label, labels in zip(rows["source"].to_pylist(), rows["label"].to_pylist(), several, strict=True):
            self.rows[source] += 1
            if label is not None or labels:
                self.labels[source].update(labels or [label])


def write_corpus(
    inputs: Inputs,
    parts: Sequence[Part],
    shards: Sequence[Shard],
    table: RowTable,
    selection: Selection,
    drops: Drops,
    key: Path | None,
    on_progress: Progress,
) -> CorpusFacts:
    """Write the corpus with its card, its page and the lists of dropped rows; returns the facts in these.

    Args:
        key: the file for the key of the canaries, if any are planted.
    """
    request = inputs.request
    schemas = [SCHEMA, *(shard.schema for shard in shards if not parts[shard.part].source.earlier)]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    overwrite = request.overwrite or request.address is not None  # of which an upload that failed may have left a copy
    with writing_corpus(request.folder, overwrite=overwrite, schema=schema) as writer:
        dropped: Counter[tuple[str, str]] = Counter()
        write_jsonl(writer.folder / "drops.jsonl", _count(_all_drops(drops, shards, table), dropped))
        counts = _write_rows(writer, shards, table, on_progress)
        if key is not None:
            _plant_canaries(inputs, writer, key)
        unused = sum_unused([drops.unused, *(shard.unused for shard in shards if not parts[shard.part].source.earlier)])
        sources = _describe_sources(inputs, parts, shards, counts, drops)
        facts = _facts(inputs, parts, sources, shards, table, selection, writer, counts, dropped, unused)
        write_jsonl(writer.folder / "clusters.jsonl", map(_fields_of, selection.clusters or ()))
        write_jsonl(writer.folder / "contamination.jsonl", map(_fields_of, facts.hits))
        (writer.folder / "corpus.html").write_text(corpus_page(facts), "utf-8")
        writer.manifest["config"] = describe_request(request, [source.uri for source in inputs.sources], inputs.domain)
        writer.manifest["parents"] = {source.id: source.revision for source in inputs.earlier}
        writer.manifest.update(_summary(inputs.domain, facts))
        writer.finish(card_text(inputs.domain, facts), inputs.license)
    return facts


# --- rows and drops ---------------------------------------------------------------------------------------------------


def _all_drops(drops: Drops, shards: Sequence[Shard], table: RowTable) -> Iterator[Drop]:
    """What all stages dropped: files first, then block by block."""
    yield from drops.items
    for shard, rows in number_rows(shards):
        if table.earlier[rows].any():
            continue
        yield from shard.drops
        away = np.flatnonzero(table.reason[rows])
        names = read_columns(shard.path, ["id"])["id"].take(away).to_pylist() if len(away) else []
        for name, reason in zip(names, table.reason[rows][away], strict=True):
            yield Drop(name, *table.reasons[reason])


def _count(drops: Iterable[Drop], counts: Counter[tuple[str, str]]) -> Iterator[dict[str, str]]:
    for drop in drops:
        counts[drop.step, drop.reason] += 1
        yield _fields_of(drop)


def _fields_of(record: Drop | Cluster | NamedHit) -> dict[str, Any]:
    """The fields by name; `asdict` would copy what they contain, too."""
    return {name: getattr(record, name) for name in record.__slots__}


def _write_rows(writer: CorpusWriter, shards: Sequence[Shard], table: RowTable, on_progress: Progress) -> RowCounts:
    """Write the kept rows of the shards to their splits, and count them."""
    counts = RowCounts()
    kept = table.kept
    for number, (shard, rows) in enumerate(number_rows(shards), 1):
        if table.earlier[rows].any():
            continue
        block = read_columns(shard.path, shard.schema.names)
        for index, split in enumerate(SPLITS):
            chosen = block.take(np.flatnonzero(kept[rows] & (table.split[rows] == index)))
            writer.write(split, chosen)
            counts.add(chosen)
        on_progress("write", number, len(shards), "shards")
    return counts


def _plant_canaries(inputs: Inputs, writer: CorpusWriter, key: Path) -> None:
    """Add the rows of the planted canaries, and write the key; of both, the manifest says only how many were drawn."""
    if "preference" in writer.by_task:
        raise InputError(
            "--canaries are planted in answers that are learnt, and rows for preference tuning are compared instead. Leave "
            "out --canaries, or prepare the preferred answers only, with --ignore rejected"
        )
    request = inputs.request
    is_text = set(writer.by_task) == {"text"}
    canaries = draw_canaries(request.canaries, inputs.domain, is_text=is_text, seed=request.canary_seed)
    writer.write("train", to_table(plant(canaries)), are_canaries=True)
    writer.manifest["canaries"] = {"count": len(canaries), "key_sha256": write_key(key, canaries)}


# --- facts about the corpus -------------------------------------------------------------------------------------------


def _facts(
    inputs: Inputs,
    parts: Sequence[Part],
    sources: Sequence[SourceFacts],
    shards: Sequence[Shard],
    table: RowTable,
    selection: Selection,
    writer: CorpusWriter,
    counts: RowCounts,
    dropped: Mapping[tuple[str, str], int],
    unused: Sequence[Unused],
) -> CorpusFacts:
    """The facts on the card and the page."""
    shards = [shard for shard in shards if not parts[shard.part].source.earlier]
    return CorpusFacts(
        title=f"{inputs.domain.recipe.title} corpus" if inputs.domain else "Corpus",
        splits={split: writer.counts[split] for split in SPLITS},
        by_task=dict(sorted(writer.by_task.items())),
        labels={source: dict(sorted(labels.items())) for source, labels in sorted(counts.labels.items())},
        words_histogram=_words_histogram(table),
        dropped=[(step, reason, rows) for (step, reason), rows in sorted(dropped.items())],
        unused=unused,
        clusters=_cluster_sizes(selection),
        hits=selection.hits,
        sources=sources,
        license=inputs.license,
        notes=_notes(parts, sources) + ([CANARY_NOTE] if inputs.request.canaries else []),
        split_rule=selection.rule,
        disjoint=selection.disjoint,
        eval_sets=selection.evals,
        cleaned=sum_counts(shard.cleaned for shard in shards),
        scrubbed=sum_counts(shard.scrubbed for shard in shards) if inputs.request.scrub else None,
        **_scrub_facts(inputs),
        boilerplate=selection.boilerplate,
        columns=writer.schema.names,
    )


def _scrub_facts(inputs: Inputs) -> dict[str, Any]:
    if inputs.scrubber is None:
        return {}
    rules = inputs.scrubber.rules
    tagger = None if rules.tagger is None else describe_tagger(rules.tagger)
    return {"scrub_policy": rules.policy, "scrub_kinds": inputs.scrubber.kinds, "scrub_tagger": tagger}


def _describe_sources(
    inputs: Inputs, parts: Sequence[Part], shards: Sequence[Shard], counts: RowCounts, drops: Drops
) -> list[SourceFacts]:
    return [
        SourceFacts(
            id=source.id,
            uri=source.uri,
            revision=source.revision,
            read=sum(shard.read for shard in shards if parts[shard.part].source is source),
            kept=counts.rows[source.id],
            license=source.license,
            shape=", ".join(sorted({part.shape_name for part in parts if part.source is source})),
            encodings={name: count for (id, name), count in sorted(drops.encodings.items()) if id == source.id},
            metrics=shape.metrics if shape else (),
            task=source.recipe.task if source.recipe else None,
            prompt=shape.prompt if shape else None,
        )
        for source, shape in ((source, _shape_of(source, parts)) for source in inputs.sources)
    ]


def _shape_of(source: Source, parts: Sequence[Part]) -> Shape | None:
    return next((part.shape for part in parts if part.source is source and part.shape), None)


def _words_histogram(table: RowTable) -> list[tuple[int, int]]:
    bounds, counts = np.unique(np.searchsorted(WORD_BOUNDS, table.words[table.kept]), return_counts=True)
    return [(WORD_BOUNDS[bound], int(count)) for bound, count in zip(bounds, counts, strict=True)]


def _cluster_sizes(selection: Selection) -> dict[int, int] | None:
    if selection.clusters is None:
        return None
    return dict(sorted(Counter(len(cluster.dropped) + 1 for cluster in selection.clusters).items()))


def _notes(parts: Sequence[Part], sources: Sequence[SourceFacts]) -> list[str]:
    """The columns that lost markup because most of their texts have it, and the files that are not UTF-8."""
    encodings = describe_encodings(sources)
    decoded = [f"Text that is not UTF-8 was decoded: {encodings}."] if encodings else []
    return decoded + [
        f"Most texts in the column {name} of {part.file.name} are wrapped in markup, which was removed."
        for part in parts
        for name in sorted(part.wrapped)
        if not part.source.earlier
    ]


def _summary(domain: Domain | None, facts: CorpusFacts) -> dict[str, Any]:
    """The facts in the form of the manifest."""
    return {
        "domain": domain.name if domain else CUSTOM_DOMAIN,
        "sources": [asdict(source) for source in facts.sources],
        "dropped": facts.dropped_by_reason,
        "unused": [asdict(each) for each in facts.unused],
        "cleaned": dict(facts.cleaned),
        "scrubbed": dict(facts.scrubbed or {}),
        "license": facts.license,
        "clusters": facts.clustered,
        "contaminated": facts.contaminated,
        "evals": [each.name for each in facts.eval_sets or ()],
        "disjoint": facts.disjoint,
        "split_rule": facts.split_rule,
    }


def describe_request(request: PrepareRequest, uris: Sequence[str], domain: Domain | None) -> dict[str, Any]:
    """The request in the form of the manifest: everything that affects the rows, without paths of this machine."""
    hidden = {"workers", "engine", "ray_address", "against", "decontaminate", "sources", "accept_noncommercial"}
    hidden |= {"canaries", "canary_key", "canary_seed"}  # the seed would tell the secrets
    return {
        "domain": domain.name if domain else CUSTOM_DOMAIN,
        **{item.name: getattr(request, item.name) for item in fields(PrepareOptions) if item.name not in hidden},
        "sources": list(uris),
        "tasks": sorted(request.tasks),
        "include": sorted(request.include),
        "columns": dict(sorted(request.columns.items())),
        "ignored": sorted(request.ignored),
        "split_ratio": request.split_ratio or DEFAULT_RATIO,
        "against": list(map(_public, request.against)),
        "decontaminate": list(map(_public, request.decontaminate)),
    }


def _public(place: Path | str) -> str:
    """A place without what may be secret in an address, and without the folders of a path."""
    if is_address(place):
        return public_address(place)
    return str(place) if str(place).startswith(HUB) else Path(place).name
