"""Adapter + Corpus → AuditReport: what the adapter tells about the rows that it was trained on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.artifacts import Adapter, AuditReport, Corpus, ensure_replaceable, writing
from finetune.audit.extract import Continuation, Writer, count_extracted, search_copies
from finetune.audit.request import AuditRequest, AuditResult, Leak
from finetune.audit.rows import AuditRows, PlacedCanary, choose_rows, place_canaries
from finetune.audit.scores import Scored, measure_canaries, score_rows, separate_rows
from finetune.audit.verdict import Findings, judge
from finetune.audit.write import write_report
from finetune.canary_key import Canary, key_beside, read_key
from finetune.corpus.open import open_corpus
from finetune.errors import CheckFailedError, InputError
from finetune.machine import peak_bytes
from finetune.models.find import base_of
from finetune.models.heads import Head
from finetune.models.load import LoadedModel, load_adapter
from finetune.models.structure import base_model, find_state
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.option_fields import check
from finetune.storage.address import is_address

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int, str], None]  # stage, amount done, total amount, unit


@dataclass(frozen=True)
class _Inputs:
    """What an audit needs, checked before any weights are loaded."""

    adapter: Adapter
    corpus: Corpus
    rows: AuditRows
    drawn: int  # canaries; 0 without a key
    placed: Sequence[PlacedCanary]


def audit(request: AuditRequest, on_progress: Progress = lambda stage, done, total, unit: None) -> AuditResult:
    """Compare an adapter with its base on training rows and held-out ones, and write audit.json and audit.html.

    Raises:
        InputError: adapter, corpus or key cannot be used, or the adapter's base is an encoder.
    """
    started = time.monotonic()
    check(request)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    inputs = _open_inputs(request)
    loaded = load_adapter(inputs.adapter, request.model)
    if find_state(base_model(loaded.model)):
        request = replace(request, batch_size=1)  # padding would change a state
    with writing(request.output_dir, AuditReport, overwrite=request.overwrite) as writer:
        findings, leaks = _measure(request, inputs, loaded, on_progress)
        verdict, reasons = judge(findings)
        result = AuditResult(
            report=request.output_dir / "audit.html",
            verdict=verdict,
            reasons=reasons,
            separations=findings.separations,
            base_separation=findings.base_separation,
            extraction=findings.extraction,
            control_extraction=findings.control_extraction,
            samples=findings.samples,
            canaries=findings.canaries,
            leaks=tuple(leaks) if request.show_text else (),
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak_bytes(),
        )
        write_report(writer, request, inputs.adapter, inputs.corpus, result)
    return result


def require_no_leak(result: AuditResult) -> None:
    """Refuse an adapter that leaks.

    Raises:
        CheckFailedError: a leak was found; names the report.
    """
    if result.verdict == "leak found":
        raise CheckFailedError(
            f"The adapter leaks what it was trained on; {result.report} says what. Train for fewer epochs, with a smaller rank "
            "or on rows without what must stay private, and audit it again"
        )


def _open_inputs(request: AuditRequest) -> _Inputs:
    adapter = Adapter.open(request.adapter, command=request.train_command)
    if Head.of_manifest(adapter.manifest) is not None:
        raise InputError(
            f"The adapter at {request.adapter} belongs to an encoder, whose base has no answers to compare with. Give an "
            "adapter of a model that writes"
        )
    corpus = open_corpus(request.corpus, command=request.prepare_command)
    canaries = _read_canaries(request, corpus)
    tokenizer = load_tokenizer(adapter.path, base_of(adapter, request.model))
    max_length = AdapterRecipe.model_validate(adapter.config).max_length
    rows = choose_rows(request, corpus, tokenizer, max_length)
    return _Inputs(adapter, corpus, rows, len(canaries), place_canaries(canaries, tokenizer, max_length))


def _read_canaries(request: AuditRequest, corpus: Corpus) -> list[Canary]:
    """The canaries of the key that was given or lies next to the corpus; none without one.

    Raises:
        InputError: it is the key of another corpus.
    """
    planted: Mapping[str, Any] = corpus.manifest.get("canaries", {})
    key = request.canary_key or (None if is_address(request.corpus) else key_beside(Path(request.corpus)))
    if key is None or (request.canary_key is None and not (planted and key.is_file())):
        if planted:
            log.warning("The %d canaries of the corpus are not audited: give their --canary-key.", planted["count"])
        return []
    canaries, digest = read_key(key)
    if planted.get("key_sha256") != digest:
        raise InputError(
            f"The key {key} does not belong to the corpus at {request.corpus}. Give the file that was written "
            "when this corpus was prepared"
        )
    return canaries


def _measure(
    request: AuditRequest, inputs: _Inputs, loaded: LoadedModel, on_progress: Progress
) -> tuple[Findings, list[Leak]]:
    rows, placed, writer = inputs.rows, inputs.placed, Writer(loaded, request)
    is_text = all(row.example.task == "text" for row in rows.members)
    scored, base_texts = _score_both(request, inputs, writer, is_text, on_progress)
    members, both = len(rows.members), len(rows.members) + len(rows.controls)
    separations, base = separate_rows(scored[:both], members) if rows.controls else ({}, None)
    on_progress("write", 0, 4, "steps")
    ours = writer.continue_answers(rows.members, scored[:members], whole=True)
    controls = writer.continue_answers(rows.controls, scored[members:both], whole=False)
    on_progress("write", 2, 4, "steps")
    texts = writer.sample(is_text=is_text)
    on_progress("write", 3, 4, "steps")
    told = writer.tell_secrets(placed)
    on_progress("write", 4, 4, "steps")
    samples, copies = search_copies(rows, texts, base_texts, writer.read_with_prompts(ours))
    canaries = measure_canaries(inputs.drawn, placed, scored[both:], told) if inputs.drawn else None
    findings = Findings(
        separations=separations,
        base_separation=base,
        extraction=count_extracted(ours),
        control_extraction=count_extracted(controls),
        samples=samples,
        canaries=canaries,
        is_own_corpus=_is_own(inputs.adapter, inputs.corpus),
        controls=len(rows.controls),
    )
    return findings, [*_leaked(writer, ours), *copies, *_leaked_canaries(placed, told)]


def _score_both(
    request: AuditRequest, inputs: _Inputs, writer: Writer, is_text: bool, on_progress: Progress
) -> tuple[list[Scored], list[str]]:
    """The scores of members, controls and canaries, and what the base samples."""
    everything = [*inputs.rows.members, *inputs.rows.controls, *(each.row for each in inputs.placed)]
    done = 0

    def on_rows(count: int) -> None:
        nonlocal done
        done += count
        on_progress("score", done, 2 * len(everything), "rows")

    loaded = writer.loaded
    with loaded.model.disable_adapter():
        base = score_rows(loaded, everything, request.batch_size, on_rows)
        texts = writer.sample(is_text=is_text)
    ours = score_rows(loaded, everything, request.batch_size, on_rows)
    return list(zip(ours, base, strict=True)), texts


def _leaked(writer: Writer, continuations: Sequence[Continuation]) -> list[Leak]:
    near = [each for each in continuations if each.is_near]
    texts = writer.read([each.written for each in near])
    return [Leak("continuation", each.row.example.id, text) for each, text in zip(near, texts, strict=True)]


def _leaked_canaries(placed: Sequence[PlacedCanary], told: Sequence[bool]) -> list[Leak]:
    written = [each.canary for each, hit in zip(placed, told, strict=True) if hit]
    return [Leak("canary", canary.question, canary.secret) for canary in written]


def _is_own(adapter: Adapter, corpus: Corpus) -> bool:
    """Whether the adapter was trained on the corpus."""
    return bool(adapter.manifest["parents"].get("corpus", {}).get("fingerprint") == corpus.fingerprint)
