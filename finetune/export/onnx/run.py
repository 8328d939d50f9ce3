"""Encoder → ONNX: converted by transformers, and compared in onnxruntime with the adapter over its base as trained."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from finetune.artifacts import Adapter, Model
from finetune.errors import CheckFailedError, InputError
from finetune.export.merged import merge_for_export
from finetune.export.onnx.convert import FILES, convert, require_onnx
from finetune.export.onnx.session import OnnxEncoder
from finetune.export.request import Agreement, ExportRequest, Files
from finetune.merge.distance import measure_distance, store_traces
from finetune.merge.held_out import choose_rows
from finetune.models.encoder_inputs import encode
from finetune.models.heads import write_head_config
from finetune.models.load import LoadedModel, load_merged
from finetune.models.tokenizer import save_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import OnnxPrecision
from finetune.records import Example
from finetune.scoring.encoders import prediction_logits

Stage = Callable[[str], None]

ROWS = 200  # that are compared, if the corpus has as many
TIMED = 32  # of them, for the milliseconds per row
# Limits of the mean KL from the adapter in nats per row and label, and of the difference between a logit of the file in float32
# and the same weights in torch. docs/guide/export.md says how they were found.
MAX_KL: dict[OnnxPrecision, float] = {"f32": 0.05, "int8": 0.1}
MAX_LOGIT_DIFFERENCE = 1e-3


def write_onnx(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write an encoder as an ONNX file, with its tokenizer and its configuration, as transformers.js reads them.

    Raises:
        InputError: the model is not an encoder, or a library is missing.
        CheckFailedError: the file predicts something else than the adapter.
    """
    if artifact.manifest.get("head") is None:
        raise InputError(
            f"--format onnx exports encoders, and {artifact.path} is a causal language model. Export it with --format gguf"
        )
    precision: OnnxPrecision = "int8" if request.options.quantization == "int8" else "f32"
    require_onnx()
    file = folder / FILES[precision]
    with TemporaryDirectory(dir=folder) as scratch:
        exact = trained = Path(scratch, "exact")
        model = artifact
        if isinstance(artifact, Adapter):
            merged = merge_for_export(artifact, request, Path(scratch), stage, ROWS)
            model, trained = merged.model, merged.adapter_traces
        assert isinstance(model, Model)
        plain = load_merged(model)
        plain.model.float()
        rows = choose_rows(request.corpus, plain.tokenizer, plain.head, ROWS)
        length = _max_length(artifact)
        stage("tracing the model")
        store_traces(plain, rows, length, exact)
        stage("writing the ONNX file")
        convert(plain, precision, file)
        stage("running the file in onnxruntime")
        encoder = OnnxEncoder(file, plain.model.config)
        exported = replace(plain, model=encoder)
        gap = measure_distance(exported, rows, length, exact).max_abs_logit_diff
        distance = measure_distance(exported, rows, length, trained)
    _require_close(precision, distance.mean_kl, gap)
    write_head_config(plain.model, folder)
    plain.tokenizer.model_max_length = plain.context  # where programs without transformers cut a text
    save_tokenizer(plain.tokenizer, folder, is_encoder=True)
    return Files(
        agreement=Agreement(len(rows), distance.mean_kl, distance.greedy_agreement, encoder.runtime),
        quantization=precision,
        facts={
            "largest logit difference from torch": float(f"{gap:.2g}"),
            "ms per row": _milliseconds(exported, rows, length),
            "ms per row in torch": _milliseconds(plain, rows, length),
        },
    )


def _max_length(artifact: Adapter | Model) -> int:
    """The tokens of a row in training."""
    config = artifact.config if isinstance(artifact, Adapter) else artifact.config["adapter_config"]
    return AdapterRecipe.model_validate(config).max_length


def _require_close(precision: OnnxPrecision, kl: float, gap: float) -> None:
    limit = MAX_KL[precision]
    if kl <= limit and (precision == "int8" or gap <= MAX_LOGIT_DIFFERENCE):
        return
    way_out = "Try --quantization f32" if precision == "int8" else "Serve the adapter itself with slmtune serve"
    raise CheckFailedError(
        f"The ONNX file does not follow the adapter: mean KL {kl:.4f} nats (limit {limit}), largest difference from the same "
        f"weights in torch {gap:.2g}. Nothing was written. {way_out}"
    )


def _milliseconds(loaded: LoadedModel, rows: Sequence[Example], max_length: int) -> float:
    """The median time for one row by itself."""
    times = []
    for row in rows[:TIMED]:
        tokens = encode(loaded.tokenizer, row, max_length)
        started = time.perf_counter()
        prediction_logits(loaded, tokens)
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 2)
