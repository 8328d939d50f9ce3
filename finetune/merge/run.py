"""Adapter → Model: fold LoRA matrices into the weights of the base model, and prove that the result is the adapter.

Two checks decide. The weights: every stored tensor is read back and must equal, bit for bit, what PEFT makes of base and
adapter. The behaviour: on held-out rows, the stored model is compared with the adapter over its base as it was trained,
quantised or not; the difference is bounded.

An adapter that was trained over quantised weights can be merged onto the original ones or onto the quantised ones,
dequantised. Only one model is in memory at a time, and only the logits of one row: those of the adapter wait in files until
the merged models are compared with them.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from finetune.artifacts import Adapter, ArtifactWriter, Model, ensure_replaceable, writing
from finetune.cards.model_card import model_card
from finetune.errors import CheckFailedError
from finetune.machine import explain_full_disk, peak_bytes
from finetune.merge.candidate import Source, check_candidate, choose_forms, trace_adapter, write_candidate
from finetune.merge.combine import combine_adapters, require_combinable
from finetune.merge.held_out import choose_rows, count_bundled
from finetune.merge.request import Candidate, MergeRequest, MergeResult
from finetune.merge.weights.matrices import require_trained_scale
from finetune.merge.work_folder import SCRATCH, open_work_folder, require_space
from finetune.models.find import BaseModel, base_of
from finetune.models.heads import Head
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.option_fields import check
from finetune.scoring.label_tasks import describe_label_tasks, label_tasks_of

FORMS = {"original": "the original weights", "dequantized": "the dequantised weights"}


def merge_adapter(request: MergeRequest, on_stage: Callable[[str], None] | None = None) -> MergeResult:
    """Merge an adapter into its base model and verify the stored result.

    Raises:
        CheckFailedError: the merged model is not the adapter; nothing is left behind.
        DiskFullError: there is no room for the models and the logits that are compared; nothing is left behind.
        OutputInUseError: another process is merging into the same folder.
    """
    started, stage = time.monotonic(), on_stage or (lambda name: None)
    check(request)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    adapters = [Adapter.open(path, command=request.train_command) for path in (request.adapter, *request.others)]
    require_combinable(adapters, request.weights)
    forms = choose_forms(request.onto, AdapterRecipe.model_validate(adapters[0].config))
    base = base_of(adapters[0], request.model)
    inputs = {"adapters": [one.fingerprint for one in adapters], "base": base.fingerprint, **_combination(request)}
    parent = Path(os.path.abspath(request.output_dir)).parent
    with (
        explain_full_disk(parent, "or choose another --output-dir"),
        open_work_folder(request.output_dir, inputs) as work,
    ):
        source = _open_source(adapters, base, request, work / SCRATCH)
        kept = sum(path.stat().st_size for path in work.glob("*/*"))
        traced = 1 if request.traces is None else 1 + len(forms)
        require_space(work, len(forms) * source.weights_size + traced * source.traces_size - kept)
        traces = work / SCRATCH / "traces"
        traces.mkdir()
        stage("tracing the adapter over its base as trained")
        score = trace_adapter(source, traces / "adapter")
        candidates = []
        for onto in forms:
            stage(f"merging onto {FORMS[onto]}")
            write_candidate(source, onto, work / onto)
            stage("verifying the merged model")
            keep = None if request.traces is None else traces / onto
            candidates.append(check_candidate(source, onto, work / onto, traces / "adapter", keep))
        best = min(candidates, key=lambda one: (math.isnan(one.distance.mean_kl), one.distance.mean_kl))
        if not request.dry_run:
            if not (best.is_close or request.allow_drift):
                raise CheckFailedError(_describe_drift(best))
            with writing(request.output_dir, Model, overwrite=request.overwrite) as writer:
                for path in (work / best.onto).iterdir():
                    os.replace(path, writer.folder / path.name)
                _describe(writer, adapters, request, source, best, candidates, score)
            if request.traces is not None:
                shutil.move(traces / "adapter", request.traces / "adapter")
                shutil.move(traces / best.onto, request.traces / "model")
    return MergeResult(
        model=request.output_dir,
        written=not request.dry_run,
        onto=best.onto,
        is_encoder=source.head is not None,
        verified=best.is_close,
        max_abs_logit_diff=best.distance.max_abs_logit_diff,
        mean_kl=best.distance.mean_kl,
        greedy_agreement=best.distance.greedy_agreement,
        bundled_rows=count_bundled(source.rows),
        drift=best.distance,
        adapter_score=score,
        candidates=tuple(candidates),
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_bytes(),
    )


def _open_source(adapters: Sequence[Adapter], base: BaseModel, request: MergeRequest, scratch: Path) -> Source:
    """What is merged: the adapter, or the combination of several, which is made in the folder `scratch`."""
    scratch.mkdir()
    adapter = adapters[0]
    head = Head.of_manifest(adapter.manifest)
    folder, recipe = adapter.path, AdapterRecipe.model_validate(adapter.config)
    if len(adapters) == 1:
        require_trained_scale(folder, recipe)
    else:
        folder = scratch / "combined"
        recipe = combine_adapters(adapters, base.folder, request, folder)
    return Source(
        folder, base, recipe, head, choose_rows(request.corpus, load_tokenizer(folder, base), head, request.rows)
    )


def _combination(request: MergeRequest) -> dict[str, object]:
    """How several adapters are combined; empty if there is only one."""
    names = ("combination", "density", "weights") if request.others else ()
    return {name: list(value) if isinstance(value := getattr(request, name), tuple) else value for name in names}


def _describe(
    writer: ArtifactWriter,
    adapters: Sequence[Adapter],
    request: MergeRequest,
    source: Source,
    best: Candidate,
    candidates: Sequence[Candidate],
    score: float | None,
) -> None:
    first = adapters[0]
    writer.manifest["config"] = {"onto": best.onto, "adapter_config": dict(first.config), **_combination(request)}
    parents = {"adapter": {"fingerprint": first.fingerprint}, **first.manifest["parents"]}
    for number, other in enumerate(adapters[1:], 2):
        parents[f"adapter_{number}"] = {"fingerprint": other.fingerprint}
        parents[f"corpus_{number}"] = other.manifest["parents"]["corpus"]
    writer.manifest["parents"] = parents
    if source.head is not None:
        writer.manifest["head"] = source.head.describe()
    writer.manifest |= describe_label_tasks(task for adapter in adapters for task in label_tasks_of(adapter.manifest))
    writer.manifest["verification"] = {
        "verified": best.is_close,
        "bundled_rows": count_bundled(source.rows),
        "drift": asdict(best.distance),
        "adapter_score": score,
        "candidates": [asdict(one) for one in candidates],
    }
    (writer.folder / "README.md").write_text(model_card(Model(writer.folder, writer.manifest), None), "utf-8")


def _describe_drift(best: Candidate) -> str:
    return (
        f"The merged model is not the adapter: merged onto {FORMS[best.onto]}, its mean KL from the adapter over its base as "
        f"trained is {best.distance.mean_kl:.4f} nats, above {best.max_kl}. Nothing was written. Serve the adapter itself "
        "(slmtune serve), train again with --quantization none and merge that, or accept the drift with --allow-drift"
    )
