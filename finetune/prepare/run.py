"""Prepare: from sources to a corpus.

Survey the files, extract documents, read rows into shards (clean, judge, scrub, sign), place rows in splits, drop
duplicates and what gives away an eval set, limit, write. Only the reading holds text, a block at a time.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.artifacts import Corpus, ensure_replaceable, write_jsonl
from finetune.cards.corpus_page import CorpusFacts, corpus_page
from finetune.cards.dataset_card import card_text
from finetune.corpus.store import writing_corpus
from finetune.errors import InputError, SlmtuneError
from finetune.prepare.check import check_request
from finetune.prepare.drops import Drops
from finetune.prepare.evals import load_evals
from finetune.prepare.licenses import strictest
from finetune.prepare.read import read_shards
from finetune.prepare.request import PrepareRequest, PrepareResult, Progress
from finetune.prepare.row_table import RowTable
from finetune.prepare.rows.survey import Part, survey
from finetune.prepare.select import Decided, decide
from finetune.prepare.shards import Shard, collect_rows
from finetune.prepare.sources.source import Source, open_earlier, open_sources
from finetune.prepare.work_folder import open_work_folder
from finetune.prepare.write import Tally, describe_request, write_rows
from finetune.recipe import CUSTOM_DOMAIN, Domain, load_domain
from finetune.records import SPLITS


@dataclass(frozen=True)
class Asked:
    """What is known before anything is read; `license` is that of the corpus."""

    request: PrepareRequest
    domain: Domain | None
    sources: tuple[Source, ...]
    earlier: tuple[Source, ...]
    license: str


def prepare(request: PrepareRequest, on_progress: Progress = lambda stage, done, total, unit: None) -> PrepareResult:
    """Turn sources into a corpus at `request.output_dir`; the corpus appears whole or not at all.

    A run that was interrupted leaves its finished stages in a folder beside the corpus, and the same request goes on
    from there.

    Args:
        request: what to read, and how.
        on_progress: told the stage, how much of it is done, of how much, in which unit.

    Raises:
        SlmtuneError: the request, a source or a row cannot be used; names it and says what to do.
    """
    started = time.perf_counter()
    domain = load_domain(request.domain) if request.domain is not None else None
    check_request(request, domain)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    sources, earlier = open_sources(request, domain), open_earlier(request)
    asked = Asked(request, domain, tuple(sources), tuple(earlier), strictest(source.license for source in sources))
    drops = Drops(request.on_error)
    parts = survey([*earlier, *sources], request, domain, drops)
    evals = load_evals(request, domain)
    folder = open_work_folder(request, [*earlier, *sources], evals)
    try:
        shards = read_shards(parts, request, domain, evals, folder, drops, on_progress)
        if not any(shard.rows for shard in shards):
            raise InputError(_nothing_left(shards, None, drops))
        numbers = collect_rows(shards, parts, [source.id for source in (*earlier, *sources)])
        decided = decide(numbers, shards, [*earlier, *sources], request, evals, folder, on_progress)
        if not numbers.kept.any():
            raise InputError(_nothing_left(shards, numbers, drops))
        result = _write(asked, parts, shards, numbers, decided, drops, on_progress)
    except SlmtuneError:
        shutil.rmtree(folder, ignore_errors=True)  # the next try is another request, or reads other files
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return PrepareResult(**result, seconds=round(time.perf_counter() - started, 3))


def _nothing_left(shards: Sequence[Shard], numbers: RowTable | None, drops: Drops) -> str:
    read = sum(shard.read for shard in shards)
    reasons = Counter(drop.reason for shard in shards for drop in shard.drops)
    reasons.update(drop.reason for drop in drops.items)
    if numbers is not None:
        reasons.update(numbers.reasons[reason][1] for reason in numbers.reason if reason)
    told = ", ".join(f"{reason} {number}" for reason, number in sorted(reasons.items()))
    return f"No row is left: {read} read, dropped {told or 'none'}. Correct the rows"


def _write(
    asked: Asked,
    parts: Sequence[Part],
    shards: Sequence[Shard],
    numbers: RowTable,
    decided: Decided,
    drops: Drops,
    on_progress: Progress,
) -> dict[str, Any]:
    """Write the corpus; returns what the result says of it."""
    request, domain = asked.request, asked.domain
    with writing_corpus(request.output_dir, overwrite=request.overwrite) as writer:
        tally = write_rows(
            writer, shards, numbers, drops.items, lambda done: on_progress("write", done, len(shards), "shards")
        )
        scrubbed = _scrubbed(shards)
        described = _described(asked.sources, parts, shards, tally)
        facts = _facts(asked, writer.counts, tally, described, decided, shards)
        dropped = {reason: number for (_, reason), number in sorted(tally.dropped.items())}
        write_jsonl(writer.folder / "clusters.jsonl", decided.clusters or [])
        write_jsonl(writer.folder / "contamination.jsonl", decided.hits)
        (writer.folder / "corpus.html").write_text(corpus_page(facts), "utf-8")
        writer.manifest["config"] = describe_request(request, [source.uri for source in asked.sources], domain)
        writer.manifest["parents"] = {source.id: source.revision for source in asked.earlier}
        summary = {
            "sources": described,
            "dropped": dropped,
            "scrubbed": scrubbed,
            "license": asked.license,
            "clusters": len(decided.clusters or []),
            "contaminated": len({hit["row"] for hit in decided.hits}),
            "evals": [part["name"] for part in decided.evals],
            "disjoint": decided.disjoint,
        }
        writer.manifest.update(
            {"domain": domain.name if domain else CUSTOM_DOMAIN, **summary, "split_rule": decided.rule}
        )
        writer.finish(card_text(domain, facts, scrubbed if request.scrub else None), asked.license)
    corpus = Corpus.open(request.output_dir)
    return summary | {
        "corpus": corpus.path,
        "splits": corpus.counts,
        "fingerprint": corpus.fingerprint,
        "by_task": dict(sorted(tally.by_task.items())),
        "labels": {source: dict(sorted(counts.items())) for source, counts in tally.labels.items()},
    }


def _scrubbed(shards: Sequence[Shard]) -> dict[str, int]:
    total: dict[str, int] = {}
    for shard in shards:
        for entity, number in shard.scrubbed.items():
            total[entity] = total.get(entity, 0) + number
    return dict(sorted(total.items()))


def _described(
    sources: Sequence[Source], parts: Sequence[Part], shards: Sequence[Shard], tally: Tally
) -> list[dict[str, Any]]:
    """What the manifest, the card and the result all say of the sources."""
    read = dict.fromkeys((source.id for source in sources), 0)
    shapes: dict[str, set[str]] = {source.id: set() for source in sources}
    for part in parts:
        if not part.source.earlier:
            shapes[part.source.id].add(part.shape_name)
    for shard in shards:
        source = parts[shard.part].source
        if not source.earlier:
            read[source.id] += shard.read
    return [
        {
            "id": source.id,
            "uri": source.uri,
            "revision": source.revision,
            "read": read[source.id],
            "kept": tally.by_source[source.id],
            "license": source.license,
            "shape": ", ".join(sorted(shapes[source.id])),
        }
        for source in sources
    ]


def _facts(
    asked: Asked,
    splits: Mapping[str, int],
    tally: Tally,
    sources: Sequence[Mapping[str, Any]],
    decided: Decided,
    shards: Sequence[Shard],
) -> CorpusFacts:
    """What the card and the page show."""
    escaped = sum(shard.escaped for shard in shards)
    notes = [f"{escaped} control tokens of chat models in the texts were made harmless."] if escaped else []
    clusters = None
    if decided.clusters is not None:
        clusters = dict(sorted(Counter(len(cluster["dropped"]) + 1 for cluster in decided.clusters).items()))
    return CorpusFacts(
        title=f"{asked.domain.recipe.title} corpus" if asked.domain else "Corpus",
        splits={split: splits.get(split, 0) for split in SPLITS},
        by_task=dict(sorted(tally.by_task.items())),
        by_source={source["id"]: source["kept"] for source in sources},
        labels={source: dict(sorted(counts.items())) for source, counts in tally.labels.items()},
        words_histogram=sorted(tally.words.items()),
        dropped=[(step, reason, number) for (step, reason), number in sorted(tally.dropped.items())],
        clusters=clusters,
        hits=decided.hits,
        sources=sources,
        license=asked.license,
        notes=notes,
        split_rule=decided.rule,
        disjoint=decided.disjoint,
        eval_sets=decided.evals,
        boilerplate=decided.boilerplate,
    )
