"""Model → ONNX: converted by transformers, and compared in onnxruntime with the adapter over its base as trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from finetune.artifacts import Adapter, Model
from finetune.export.compared import Compared, Stage, convert_and_compare, write_settings
from finetune.export.onnx.convert import FILES, convert, require_onnx
from finetune.export.onnx.decoder import require_decoder
from finetune.export.onnx.session import OnnxDecoder, OnnxEncoder
from finetune.export.request import Agreement, ExportRequest, Files
from finetune.merge.held_out import ROWS as TEXT_ROWS
from finetune.models.find import base_of
from finetune.models.load import LoadedModel
from finetune.recipe.options import OnnxPrecision
from finetune.scoring.inputs import render_prompts

ENCODER_ROWS = 200  # that are compared, if the corpus has as many
TIMED_TOKENS = 32
# Limits of the mean KL from the adapter, in nats per row and label or per token of the answers. docs/guide/export.md says how
# they were found.
MAX_KL: dict[OnnxPrecision, float] = {"f32": 0.05, "int8": 0.1}
MAX_TEXT_KL: dict[OnnxPrecision, float] = {"f32": 0.05, "int8": 0.25}


def write_onnx(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write a model as an ONNX file, with its tokenizer and its configuration, as transformers.js reads them.

    Raises:
        InputError: the model is of a type that is not supported, or a library is missing.
        CheckFailedError: the file predicts something else than the adapter.
    """
    is_encoder = artifact.manifest.get("head") is not None
    precision: OnnxPrecision = "int8" if request.options.quantization == "int8" else "f32"
    if not is_encoder:
        require_decoder(base_of(artifact, request.model).folder if isinstance(artifact, Adapter) else artifact.path)
    require_onnx()

    def write(plain: LoadedModel) -> OnnxEncoder | OnnxDecoder:
        file = folder / FILES[precision]
        convert(plain, precision, file)
        return (OnnxEncoder if is_encoder else OnnxDecoder)(file, plain.model.config)

    compared = convert_and_compare(artifact, request, folder, stage, write, ENCODER_ROWS if is_encoder else TEXT_ROWS)
    way_out = "Try --quantization f32" if precision == "int8" else "Serve the adapter itself with slmtune serve"
    limit = (MAX_KL if is_encoder else MAX_TEXT_KL)[precision]
    compared.require_close(limit, is_exact=precision == "f32", way_out=way_out)
    write_settings(compared.plain, folder)
    return Files(
        Agreement.on(compared.rows, compared.distance, compared.exported.model.runtime),
        quantization=precision,
        facts={
            "largest logit difference from torch": float(f"{compared.gap:.2g}"),
            **(compared.time_rows() if is_encoder else _time_tokens(compared)),
        },
    )


def _time_tokens(compared: Compared) -> dict[str, float]:
    """The speed of the tokens that follow a prompt, one at a time."""
    decoder: OnnxDecoder = compared.exported.model
    prompt: Sequence[int] = render_prompts(compared.plain, compared.rows[:1])[0]
    logits, cache = decoder.read(prompt, decoder.empty_cache())
    started = time.perf_counter()
    for _ in range(TIMED_TOKENS):
        logits, cache = decoder.read([int(logits[-1].argmax())], cache)
    return {"tokens_per_second": TIMED_TOKENS / (time.perf_counter() - started)}
