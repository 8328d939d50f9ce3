"""Prepare: from sources to a corpus. Read, shape, clean, scrub, split, drop duplicates, limit, write."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from finetune.artifacts import ensure_replaceable
from finetune.corpus import count_tasks, write_corpus
from finetune.errors import InputError
from finetune.prepare.card import card_text
from finetune.prepare.dedup import Placed, drop_duplicates, question_key
from finetune.prepare.request import PrepareRequest, PrepareResult, check_request, describe_request, ratio_of
from finetune.prepare.rows import Ledger, Loaded, load_rows
from finetune.prepare.sources import Source, open_sources
from finetune.prepare.split import draw_split, shares_left
from finetune.recipe import CUSTOM_DOMAIN, load_domain
from finetune.records import SPLITS, Drop, Example, Split

__all__ = ["PrepareRequest", "PrepareResult", "prepare"]


def prepare(request: PrepareRequest) -> PrepareResult:
    """Turn sources into a corpus at `request.output_dir`. Nothing is written before every row has been looked at.

    Raises:
        SlmtuneError: the request, a source or a row cannot be used; names it and says what to do.
    """
    started = time.perf_counter()
    domain = load_domain(request.domain) if request.domain is not None else None
    check_request(request, domain)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    sources = open_sources(request, domain)
    ledger = Ledger(request.on_error)
    rows = _place(load_rows(sources, request, domain, ledger), request)
    if request.dedup:
        rows, drops = drop_duplicates(rows)
        ledger.drops += drops
    if request.limit is not None:
        rows, drops = _limit(rows, request.limit, request.seed)
        ledger.drops += drops
    if not rows:
        raise InputError(
            f"No row is left: {ledger.read.total()} read, dropped {_counts(ledger.drops)}. Correct the rows"
        )
    splits: dict[Split, list[Example]] = {
        split: [row.example for row in rows if row.split == split] for split in SPLITS
    }
    facts = _facts(sources, rows, ledger)
    about = facts | {"by_task": count_tasks(splits), "scrubbed": facts["scrubbed"] if request.scrub else None}
    corpus = write_corpus(
        request.output_dir,
        splits,
        config=describe_request(request, [source.uri for source in sources], domain),
        facts={"domain": domain.name if domain else CUSTOM_DOMAIN, **facts},
        drops=ledger.drops,
        card=card_text(domain, {split: len(splits[split]) for split in SPLITS}, **about),
        overwrite=request.overwrite,
    )
    return PrepareResult(
        corpus=corpus.path,
        splits=corpus.counts,
        fingerprint=corpus.fingerprint,
        seconds=round(time.perf_counter() - started, 3),
        by_task=count_tasks(splits),
        labels=_labels(rows),
        **facts,
    )


def _place(loaded: Sequence[Loaded], request: PrepareRequest) -> list[Placed]:
    """Settle the split of every row: the one that its source names, else one drawn by its group or its question."""
    ratio = ratio_of(request)
    shares: dict[str, dict[Split, float]] = {}
    placed = []
    for row in loaded:
        key, split, source = question_key(row.example), row.split, row.source
        if split is None:
            if source.id not in shares:
                shares[source.id] = shares_left(ratio, source.taken, source.id)
            split = draw_split(row.example.group or key, shares[source.id], request.seed)
            placed.append(Placed(row.example, split, key))
        else:
            placed.append(Placed(row.example, split, key, official=split == "test" and source.recipe is not None))
    return placed


def _limit(rows: Sequence[Placed], limit: int, seed: int) -> tuple[list[Placed], list[Drop]]:
    """Keep `limit` rows of each source and split, drawn by hash: files are often sorted by label."""
    pools: defaultdict[tuple[str, Split], list[str]] = defaultdict(list)
    for row in rows:
        pools[row.example.source, row.split].append(row.example.id)
    kept = {name for pool in pools.values() for name in sorted(pool, key=lambda name: _rank(name, seed))[:limit]}
    drops = [Drop(row.example.id, "limit", "over_limit") for row in rows if row.example.id not in kept]
    return [row for row in rows if row.example.id in kept], drops


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _facts(sources: Sequence[Source], rows: Sequence[Placed], ledger: Ledger) -> dict[str, Any]:
    """What the manifest, the card and the result all say of the sources and of the rows left out."""
    kept = Counter(row.example.source for row in rows)
    described = [
        {
            "id": source.id,
            "uri": source.uri,
            "revision": source.revision,
            "read": ledger.read[source.id],
            "kept": kept[source.id],
            "license": source.license,
        }
        for source in sources
    ]
    return {"sources": described, "dropped": _counts(ledger.drops), "scrubbed": dict(sorted(ledger.scrubbed.items()))}


def _counts(drops: Sequence[Drop]) -> dict[str, int]:
    return dict(sorted(Counter(drop.reason for drop in drops).items()))


def _labels(rows: Sequence[Placed]) -> dict[str, dict[str, int]]:
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row.example.label is not None:
            found[row.example.source][row.example.label] += 1
    return {source: dict(sorted(counts.items())) for source, counts in found.items()}
