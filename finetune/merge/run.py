"""Adapter → Model: fold LoRA matrices into the unquantised base weights, and prove that the result is the adapter.

Two comparisons on held-out rows decide. `exact`: the merged model against the adapter over the same unquantised base;
they must agree up to the rounding of the stored weights, else the merge is wrong. (An adapter that started as a correction
of quantised weights, LoftQ, is merged onto these, dequantised.) `drift`: the merged model against
the adapter over its base as it was trained, quantised or not; the difference is the cost of leaving 4 bits, and it is
bounded.

Only one model is in memory at a time, and only the logits of one row: those of the adapter wait in files until the merged
model is compared with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from finetune.artifacts import Adapter, ArtifactWriter, Model, ensure_replaceable, writing
from finetune.cards.model_card import model_card
from finetune.errors import CheckFailedError
from finetune.machine import explain_full_disk, peak_bytes
from finetune.merge.distance import measure_distances, store_traces
from finetune.merge.held_out import choose_rows
from finetune.merge.request import Distance, MergeRequest, MergeResult
from finetune.models.chat_template import end_of_turn_ids
from finetune.models.find import base_of
from finetune.models.heads import Head
from finetune.models.load import LoadedModel, load, load_base
from finetune.models.tokenizer import load_tokenizer, save_tokenizer
from finetune.recipe import AdapterRecipe

# Limits, in nats per token, or of an encoder per row and label. Measured with SmolLM2-135M on the finance sample: exact
# 0.000005 (weights rounded to bfloat16), drift 0.055 (NF4 against bfloat16 weights).
MAX_EXACT_KL = 0.01
MAX_DRIFT_KL = 0.35


def merge_adapter(request: MergeRequest, on_stage: Callable[[str], None] | None = None) -> MergeResult:
    """Merge an adapter onto its unquantised base and verify the stored result.

    Raises:
        CheckFailedError: the merged model is not the adapter; nothing is left behind.
        DiskFullError: there is no room for the model and the logits that are compared; nothing is left behind.
    """
    started = time.monotonic()
    stage = on_stage or (lambda name: None)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    adapter = Adapter.open(request.adapter, command=request.train_command)
    base = base_of(adapter, request.model)
    recipe = AdapterRecipe.model_validate(adapter.config)
    head = Head.of_manifest(adapter.manifest)
    rows = choose_rows(request.corpus, load_tokenizer(adapter.path, base), head)
    plain = recipe.model_copy(update={"quantization": "none"})
    corrects = recipe.init_lora_weights == "loftq"  # the error of the quantised weights, which the original ones lack
    onto = "dequantized" if corrects else "original"
    with (
        writing(request.output_dir, Model, overwrite=request.overwrite) as writer,
        TemporaryDirectory(dir=writer.folder) as scratch,
        explain_full_disk(writer.folder.parent, "or choose another --output-dir"),
    ):
        live, unmerged = Path(scratch, "live"), Path(scratch, "unmerged")
        stage("tracing the adapter over its base as trained")
        store_traces(load(base, recipe, adapter.path, head), rows, recipe.max_length, live)
        stage("merging onto the dequantised weights" if corrects else "merging onto the unquantised weights")
        loaded = load(base, recipe if corrects else plain, adapter.path, head, must_unpack=corrects)
        store_traces(loaded, rows, recipe.max_length, unmerged)
        _save_merged(loaded, base.folder, adapter.path, writer.folder)
        del loaded
        stage("verifying the merged model")
        tokenizer = load_tokenizer(writer.folder, base)
        merged = LoadedModel(load_base(writer.folder, plain, head=head).eval(), tokenizer, base, head)
        exact, drift = measure_distances(merged, rows, recipe.max_length, (unmerged, live))
        _require_equal(exact, drift)
        _describe(writer, adapter, head, onto, exact, drift)
    return MergeResult(
        model=request.output_dir,
        onto=onto,
        is_encoder=head is not None,
        verified=True,
        max_abs_logit_diff=drift.max_abs_logit_diff,
        mean_kl=drift.mean_kl,
        greedy_agreement=drift.greedy_agreement,
        exact=exact,
        drift=drift,
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_bytes(),
    )


def _save_merged(loaded: LoadedModel, base_folder: Path, adapter_folder: Path, out: Path) -> None:
    """Merge in the loaded precision and store in the base's own."""
    merged: Any = loaded.model.merge_and_unload(safe_merge=True)
    stored = AutoConfig.from_pretrained(base_folder, local_files_only=True, trust_remote_code=False).dtype
    merged.to(stored or torch.float32)
    merged.config.dtype = stored
    if loaded.head is None:
        generation: GenerationConfig = merged.generation_config
        generation.eos_token_id = end_of_turn_ids(loaded.tokenizer)
        generation.pad_token_id = loaded.tokenizer.pad_token_id
    merged.save_pretrained(out, safe_serialization=True, max_shard_size="4GB")
    save_tokenizer(load_tokenizer(adapter_folder, loaded.base), out, is_encoder=loaded.head is not None)


def _describe(
    writer: ArtifactWriter, adapter: Adapter, head: Head | None, onto: str, exact: Distance, drift: Distance
) -> None:
    writer.manifest["config"] = {"onto": onto, "adapter_config": dict(adapter.config)}
    writer.manifest["parents"] = {"adapter": {"fingerprint": adapter.fingerprint}, **adapter.manifest["parents"]}
    if head is not None:
        writer.manifest["head"] = head.describe()
    writer.manifest["verification"] = {"exact": asdict(exact), "drift": asdict(drift)}
    (writer.folder / "README.md").write_text(model_card(Model(writer.folder, writer.manifest), None), "utf-8")


def _require_equal(exact: Distance, drift: Distance) -> None:
    for name, kl, limit in (("exact", exact.mean_kl, MAX_EXACT_KL), ("drift", drift.mean_kl, MAX_DRIFT_KL)):
        if not kl <= limit:
            against = "the adapter over the same weights" if name == "exact" else "the adapter over its base as trained"
            raise CheckFailedError(
                f"The merged model is not {against}: mean KL {kl:.4f} nats is above {limit}. Nothing was written. "
                "Serve the adapter itself (slmtune serve), or train again with --quantization none and merge that"
            )
