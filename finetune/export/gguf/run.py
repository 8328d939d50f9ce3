"""Adapter or Model → GGUF: writes the file and compares it, in llama.cpp, with the adapter as it was trained."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Adapter, Model
from finetune.errors import CheckFailedError, InputError
from finetune.export.gguf.compare import Comparison, compare_file
from finetune.export.gguf.families import Shape, read_shape
from finetune.export.gguf.quantize import MAX_KL, UNQUANTIZED, quantize
from finetune.export.gguf.tensors import list_tensors, stored_precision
from finetune.export.gguf.vocabulary import read_vocabulary
from finetune.export.gguf.writer import write_model
from finetune.export.request import Agreement, ExportRequest, Files
from finetune.merge import MergeRequest, merge_adapter
from finetune.merge.distance import store_traces
from finetune.merge.held_out import choose_rows
from finetune.merge.run import MAX_DRIFT_KL
from finetune.models.find import BaseModel, base_of
from finetune.models.load import LoadedModel, load_adapter, load_merged
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example

Stage = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A model that llama.cpp can run: its shape, its tokenizer, and the name of its base model."""

    artifact: Adapter | Model
    shape: Shape
    tokenizer: PreTrainedTokenizerBase
    name: str


def write_gguf(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write a model as a GGUF file in `folder`; an adapter is merged first.

    Raises:
        CheckFailedError: in llama.cpp, the file computes something else than the adapter or the model.
        InputError: llama.cpp does not support the model, or is not installed.
    """
    precision = request.options.quantization
    source = _read_source(artifact, request)
    rows = choose_rows(request.corpus, source.tokenizer, None)
    file = folder / f"model-{precision}.gguf"
    with TemporaryDirectory(dir=folder) as scratch:
        references = _trace(source, request, rows, Path(scratch), stage)
        model = artifact.path if isinstance(artifact, Model) else Path(scratch, "model")
        stage("writing the GGUF file")
        _write(source, model, file, Path(scratch), precision)
        stage("running the file in llama.cpp")
        comparison = compare_file(file, source.tokenizer, rows, references)
    _require_close(comparison, precision)
    return _describe(comparison, len(rows), precision, request.output_dir / file.name)


def _read_source(artifact: Adapter | Model, request: ExportRequest) -> Source:
    """Refuse, before any work, what llama.cpp cannot run."""
    if importlib.util.find_spec("cyllama") is None:
        raise InputError("--format gguf needs llama.cpp. Install it with: pip install 'slmtune[gguf]'")
    if artifact.manifest.get("head") is not None:
        raise InputError(f"{artifact.path} is an encoder. The export to GGUF supports causal language models only")
    if isinstance(artifact, Adapter):
        base = base_of(artifact, request.model)
        folder, tokenizer = base.folder, load_tokenizer(artifact.path, base)
    else:
        folder, tokenizer = (
            artifact.path,
            load_tokenizer(artifact.path, BaseModel(artifact.path.name, artifact.path, "local", "")),
        )
    shape = read_shape(folder)
    list_tensors(folder, shape)
    read_vocabulary(tokenizer, shape.config.vocab_size)
    return Source(artifact, shape, tokenizer, artifact.manifest["parents"]["base_model"]["name"])


def _trace(
    source: Source, request: ExportRequest, rows: Sequence[Example], scratch: Path, stage: Stage
) -> tuple[Path, ...]:
    """Trace the weights that the file will contain and, of an adapter, what they were trained to be."""

    def trace(loaded: LoadedModel, name: str) -> Path:
        store_traces(loaded, rows, loaded.context, scratch / name)
        return scratch / name

    artifact = source.artifact
    if isinstance(artifact, Model):
        stage("tracing the model")
        return (trace(load_merged(artifact), "exact"),)
    stage("tracing the adapter over its base as trained")
    live = trace(load_adapter(artifact, request.model), "live")
    merged = MergeRequest(artifact.path, scratch / "model", request.corpus, request.model)
    merge_adapter(merged, stage)
    if not AdapterRecipe.model_validate(artifact.config).is_quantized:
        return (live,)
    stage("tracing the merged model")
    return trace(load_merged(Model.open(scratch / "model")), "exact"), live


def _write(source: Source, model: Path, file: Path, scratch: Path, precision: str) -> None:
    if precision in UNQUANTIZED:
        write_model(model, source.shape, source.tokenizer, file, precision=precision, name=source.name)
        return
    whole = scratch / "whole.gguf"
    write_model(model, source.shape, source.tokenizer, whole, precision=stored_precision(model), name=source.name)
    quantize(whole, file, precision)


def _require_close(comparison: Comparison, precision: str) -> None:
    """Refuse a file that is too far from its weights in transformers, or from the adapter as trained."""
    for distance, limit, reference in zip(
        comparison.distances,
        (MAX_KL[precision], MAX_KL[precision] + MAX_DRIFT_KL),
        ("the same weights in transformers", "the adapter over its base as trained"),
        strict=False,
    ):
        if not distance.mean_kl <= limit:
            raise CheckFailedError(
                f"In llama.cpp, the {precision} file is not {reference}: mean KL {distance.mean_kl:.4f} nats is above {limit}. "
                "Nothing was written. Choose a higher precision, such as --quantization f16, or serve the adapter itself "
                "(slmtune serve)"
            )


def _describe(comparison: Comparison, rows: int, precision: str, file: Path) -> Files:
    exact, last = comparison.distances[0], comparison.distances[-1]
    runtime = f"llama.cpp (cyllama {metadata.version('cyllama')})"
    return Files(
        Agreement(rows, last.mean_kl, last.greedy_agreement, runtime),
        precision,
        (f"llama-cli -m {file}",),
        {
            "mean_kl_of_the_weights": exact.mean_kl,
            "greedy_agreement_of_the_weights": exact.greedy_agreement,
            "tokens_per_second": comparison.tokens_per_second,
        },
    )
