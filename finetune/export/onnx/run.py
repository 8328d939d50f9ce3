"""Model → ONNX: converted by transformers, and compared in onnxruntime with the adapter over its base as trained."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from finetune.artifacts import Adapter, Model
from finetune.errors import CheckFailedError
from finetune.export.merged import merge_for_export
from finetune.export.onnx.convert import FILES, convert, require_onnx
from finetune.export.onnx.decoder import require_decoder
from finetune.export.onnx.session import OnnxDecoder, OnnxEncoder
from finetune.export.request import Agreement, ExportRequest, Files
from finetune.merge.distance import measure_distance, store_traces
from finetune.merge.held_out import ROWS as TEXT_ROWS
from finetune.merge.held_out import choose_rows
from finetune.models.encoder_inputs import encode
from finetune.models.find import base_of
from finetune.models.heads import write_head_config
from finetune.models.load import LoadedModel, load_merged
from finetune.models.tokenizer import save_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import OnnxPrecision
from finetune.records import Example
from finetune.scoring.encoders import prediction_logits
from finetune.scoring.inputs import render_prompts

Stage = Callable[[str], None]

# Rows that are compared, if the corpus has as many, and those of them, or the tokens, whose computation is timed.
ENCODER_ROWS, TIMED_ROWS, TIMED_TOKENS = 200, 32, 32
# Limits of the mean KL from the adapter, in nats per row and label or per token of the answers, and of the difference between a
# logit of the file in float32 and the same weights in torch. docs/guide/export.md says how they were found.
MAX_KL: dict[OnnxPrecision, float] = {"f32": 0.05, "int8": 0.1}
MAX_TEXT_KL: dict[OnnxPrecision, float] = {"f32": 0.05, "int8": 0.25}
MAX_LOGIT_DIFFERENCE = 1e-3


def write_onnx(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write a model as an ONNX file, with its tokenizer and its configuration, as transformers.js reads them.

    Raises:
        InputError: the model is of a type that is not supported, or a library is missing.
        CheckFailedError: the file predicts something else than the adapter.
    """
    is_encoder = artifact.manifest.get("head") is not None
    precision: OnnxPrecision = "int8" if request.options.quantization == "int8" else "f32"
    count = ENCODER_ROWS if is_encoder else TEXT_ROWS
    if not is_encoder:
        require_decoder(base_of(artifact, request.model).folder if isinstance(artifact, Adapter) else artifact.path)
    require_onnx()
    file = folder / FILES[precision]
    with TemporaryDirectory(dir=folder) as scratch:
        exact = trained = Path(scratch, "exact")
        model = artifact
        if isinstance(artifact, Adapter):
            merged = merge_for_export(artifact, request, Path(scratch), stage, count)
            model, trained = merged.model, merged.adapter_traces
        assert isinstance(model, Model)
        plain = load_merged(model)
        plain.model.float()
        rows = choose_rows(request.corpus, plain.tokenizer, plain.head, count)
        length = _max_length(artifact)
        stage("tracing the model")
        store_traces(plain, rows, length, exact)
        stage("writing the ONNX file")
        convert(plain, precision, file)
        stage("running the file in onnxruntime")
        running = (OnnxEncoder if is_encoder else OnnxDecoder)(file, plain.model.config)
        exported = replace(plain, model=running)
        gap = measure_distance(exported, rows, length, exact).max_abs_logit_diff
        distance = measure_distance(exported, rows, length, trained)
    _require_close(precision, distance.mean_kl, gap, is_encoder=is_encoder)
    _write_settings(plain, folder)
    if isinstance(running, OnnxDecoder):
        speed = _time_tokens(running, plain, rows)
    else:
        speed = _time_rows(exported, plain, rows, length)
    return Files(
        agreement=Agreement(len(rows), distance.mean_kl, distance.greedy_agreement, running.runtime),
        quantization=precision,
        facts={"largest logit difference from torch": float(f"{gap:.2g}"), **speed},
    )


def _write_settings(loaded: LoadedModel, folder: Path) -> None:
    """Write the configuration, the tokenizer and, of a model that writes, what ends a text."""
    write_head_config(loaded.model, folder)
    tokenizer = loaded.tokenizer
    tokenizer.model_max_length = loaded.context  # where programs without transformers cut a text
    if loaded.head is None:
        loaded.model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder, save_jinja_files=False)  # transformers.js has the template from the settings
    else:
        save_tokenizer(tokenizer, folder, is_encoder=True)


def _max_length(artifact: Adapter | Model) -> int:
    """The tokens of a row in training."""
    config = artifact.config if isinstance(artifact, Adapter) else artifact.config["adapter_config"]
    return AdapterRecipe.model_validate(config).max_length


def _require_close(precision: OnnxPrecision, kl: float, gap: float, *, is_encoder: bool) -> None:
    limit = (MAX_KL if is_encoder else MAX_TEXT_KL)[precision]
    if kl <= limit and (precision == "int8" or gap <= MAX_LOGIT_DIFFERENCE):
        return
    way_out = "Try --quantization f32" if precision == "int8" else "Serve the adapter itself with slmtune serve"
    raise CheckFailedError(
        f"The ONNX file does not follow the adapter: mean KL {kl:.4f} nats (limit {limit}), largest difference from the same "
        f"weights in torch {gap:.2g}. Nothing was written. {way_out}"
    )


def _time_rows(exported: LoadedModel, plain: LoadedModel, rows: Sequence[Example], max_length: int) -> dict[str, float]:
    return {
        "ms per row": _milliseconds(exported, rows, max_length),
        "ms per row in torch": _milliseconds(plain, rows, max_length),
    }


def _time_tokens(decoder: OnnxDecoder, plain: LoadedModel, rows: Sequence[Example]) -> dict[str, float]:
    """The speed of the tokens that follow a prompt, one at a time."""
    (prompt,) = render_prompts(plain, rows[:1])
    logits, cache = decoder.read(prompt, decoder.empty_cache())
    started = time.perf_counter()
    for _ in range(TIMED_TOKENS):
        logits, cache = decoder.read([int(logits[-1].argmax())], cache)
    return {"tokens_per_second": TIMED_TOKENS / (time.perf_counter() - started)}


def _milliseconds(loaded: LoadedModel, rows: Sequence[Example], max_length: int) -> float:
    """The median time for one row by itself."""
    times = []
    for row in rows[:TIMED_ROWS]:
        tokens = encode(loaded.tokenizer, row, max_length)
        started = time.perf_counter()
        prediction_logits(loaded, tokens)
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times), 2)
