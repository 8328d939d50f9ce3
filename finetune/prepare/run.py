"""Sources → Corpus. Only reading holds text in memory, one block at a time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from finetune.artifacts import Corpus, write_aside
from finetune.cards.corpus_facts import CorpusFacts
from finetune.corpus.skip_pandas import skip_pandas
from finetune.corpus.upload import Bucket
from finetune.errors import InputError
from finetune.prepare.drops import Drops
from finetune.prepare.engines.choose import open_engine
from finetune.prepare.evals import load_evals
from finetune.prepare.inputs import open_inputs
from finetune.prepare.read import read_shards
from finetune.prepare.request import PrepareRequest, PrepareResult, Progress
from finetune.prepare.row_table import RowTable
from finetune.prepare.rows.survey import survey
from finetune.prepare.select import select_rows
from finetune.prepare.shards import Shard, collect_rows
from finetune.prepare.splits.shares import parse_ratio
from finetune.prepare.work_folder import open_work_folder
from finetune.prepare.write import write_corpus

log = logging.getLogger(__name__)


def prepare(request: PrepareRequest, on_progress: Progress = lambda stage, done, total, unit: None) -> PrepareResult:
    """Turn sources into a corpus at `request.output_dir`, which is written whole or not at all.

    An interrupted run leaves its finished stages in a folder next to the corpus or, if that goes to a bucket, in the user's
    cache, and the same request continues from there.

    Args:
        request: what to read, and how.
        on_progress: called with the stage, the amount done, the total amount and the unit.

    Raises:
        SlmtuneError: the request, a source or a row cannot be used; names it and says how to fix it.
    """
    started = time.perf_counter()
    skip_pandas()
    inputs = open_inputs(request)
    sources, domain, drops = inputs.all_sources, inputs.domain, Drops(request.on_error)
    for source in sources:
        drops.note_unread(source)
    parts = survey(sources, request, domain, drops)
    evals = load_evals(request, domain, drops)
    files = [part.file.path for part in parts]
    with (
        _reserved(request) as bucket,
        open_work_folder(inputs, evals) as folder,
        open_engine(request, files, folder) as engine,
        write_aside(request.key_path) if request.canaries else nullcontext() as key,
    ):
        shards = read_shards(inputs, parts, evals, folder, engine, drops, on_progress)
        _check_rows_left(drops, shards)
        table = collect_rows(shards, parts, [source.id for source in sources])
        selection = select_rows(inputs, table, shards, evals, folder, engine, on_progress)
        _check_rows_left(drops, shards, table)
        facts = write_corpus(inputs, parts, shards, table, selection, drops, key, on_progress)
        corpus = Corpus.open(request.folder)
        if bucket is not None:
            corpus = bucket.upload(
                corpus,
                lambda done, total: on_progress("upload", done, total, "bytes"),
                overwrite=request.overwrite,
            )
    if not corpus.counts["train"] and parse_ratio(request.split_ratio)["train"] and request.only is None:
        log.warning("The train split is empty: training on this corpus is impossible.")
    return _result(request, corpus, facts, time.perf_counter() - started)


@contextmanager
def _reserved(request: PrepareRequest) -> Iterator[Bucket | None]:
    """The bucket that the corpus goes to, which can be written; None without one."""
    if request.address is None:
        yield None
        return
    bucket = Bucket.open(request.address)
    with bucket.reserved(overwrite=request.overwrite):
        yield bucket


def _check_rows_left(drops: Drops, shards: Sequence[Shard], table: RowTable | None = None) -> None:
    if any(shard.rows for shard in shards) if table is None else table.kept.any():
        return
    reasons = Counter(drop.reason for drop in [*drops.items, *(drop for shard in shards for drop in shard.drops)])
    if table is not None:
        reasons.update(table.reasons[reason][1] for reason in table.reason if reason)
    listed = ", ".join(f"{reason} {number}" for reason, number in sorted(reasons.items()))
    read = sum(shard.read for shard in shards)
    raise InputError(f"No rows are left: {read} read, dropped {listed or 'none'}. Correct the rows")


def _result(request: PrepareRequest, corpus: Corpus, facts: CorpusFacts, seconds: float) -> PrepareResult:
    return PrepareResult(
        corpus=corpus.path,
        splits=corpus.counts,
        dropped=facts.dropped_by_reason,
        unused=list(facts.unused),
        cleaned=dict(facts.cleaned),
        scrubbed=dict(facts.scrubbed or {}),
        sources=list(facts.sources),
        fingerprint=corpus.fingerprint,
        seconds=round(seconds, 3),
        by_task=dict(facts.by_task),
        labels={source: dict(labels) for source, labels in facts.labels.items()},
        license=facts.license,
        clusters=facts.clustered,
        contaminated=facts.contaminated,
        evals=[each.name for each in facts.eval_sets or ()],
        disjoint=facts.disjoint,
        canaries=request.canaries,
        canary_key=request.key_path if request.canaries else None,
        address=request.address,
    )
