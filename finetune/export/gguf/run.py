"""Adapter or Model → GGUF: writes the files and compares them, in llama.cpp, with the adapter as it was trained."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Adapter, Model
from finetune.errors import CheckFailedError, InputError
from finetune.export.gguf.compare import Comparison, compare_file, compare_lora, require_same_tokens
from finetune.export.gguf.ollama import ollama_files
from finetune.export.merged import merge_for_export
from finetune.export.request import Agreement, ExportRequest, Files
from finetune.merge.distance import measure_distance, store_traces
from finetune.merge.held_out import choose_rows
from finetune.merge.request import Distance
from finetune.models.find import BaseModel, base_of
from finetune.models.gguf.families import Shape, read_shape
from finetune.models.gguf.lora import read_lora, write_lora
from finetune.models.gguf.quantize import MAX_DRIFT_KL, MAX_KL, UNQUANTIZED, quantize
from finetune.models.gguf.tensors import place_tensors, stored_precision
from finetune.models.gguf.vocabulary import read_vocabulary
from finetune.models.gguf.writer import write_model
from finetune.models.load import LoadedModel, load, load_adapter, load_merged
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example

Stage = Callable[[str], None]
RUNTIMES = (
    "cyllama",
    "xllamacpp",
)  # both are llama.cpp: one gives logits, the other renders templates and adds adapters


@dataclass(frozen=True)
class Source:
    """A model that llama.cpp can run: the folder of its weights, its shape, its tokenizer, and the name of its base model.

    Of an adapter, folder and shape are those of its base model.
    """

    artifact: Adapter | Model
    folder: Path
    shape: Shape
    tokenizer: PreTrainedTokenizerBase
    name: str


def write_gguf(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write a model as a GGUF file in `folder`; an adapter is merged first.

    Raises:
        CheckFailedError: in llama.cpp, the file computes something else than the adapter or the model.
        InputError: llama.cpp does not support the model, or is not installed.
    """
    precision = request.options.quantization or "q8_0"
    source = _read_source(artifact, request)
    rows = choose_rows(request.corpus, source.tokenizer, None)
    file = folder / f"model-{precision}.gguf"
    texts = ollama_files(file.name, source.tokenizer, rows) if request.options.ollama else {}
    with TemporaryDirectory(dir=folder) as scratch:
        model, references = _trace_model(source, request, rows, Path(scratch), stage)
        stage("writing the GGUF file")
        kept = precision if precision in UNQUANTIZED else stored_precision(model)
        whole = file if kept == precision else Path(scratch, "whole.gguf")
        write_model(model, source.shape, source.tokenizer, whole, precision=kept, name=source.name)
        stage("running the file in llama.cpp")
        require_same_tokens(whole, source.tokenizer, rows)
        comparison = compare_file(whole, source.tokenizer, rows, references)
        _require_close(comparison, kept)  # within a limit so narrow that nothing can be wrong but the quantisation
        if whole != file:
            stage("quantising the file, and running it again")
            quantize(whole, file, precision)
            comparison = compare_file(file, source.tokenizer, rows, references)
            _require_close(comparison, precision)
    command = f"llama-cli -m {request.output_dir / file.name}"
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
        command = f"ollama create NAME -f {request.output_dir / 'Modelfile'}"
    return _describe(comparison, rows, precision, command)


def write_gguf_lora(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write an adapter as a GGUF file of its own in `folder`, and run it beside its base model in llama.cpp.

    Raises:
        CheckFailedError: in llama.cpp, base model and adapter compute something else than the adapter as trained.
        InputError: llama.cpp does not support the model or the kind of adapter, or is not installed.
    """
    if not isinstance(artifact, Adapter):
        raise InputError(f"{artifact.path} is a merged model, which has no adapter. Export it with: --format gguf")
    source = _read_source(artifact, request)
    config = read_lora(artifact, source.shape)
    rows = choose_rows(request.corpus, source.tokenizer, None)
    file = folder / "adapter.gguf"
    with TemporaryDirectory(dir=folder) as scratch:
        references = _trace_adapter(source, request, rows, Path(scratch), stage)
        stage("writing the GGUF files of adapter and base model")
        write_lora(artifact, config, source.shape, file)
        base, whole = Path(scratch, "base.gguf"), source.folder
        write_model(whole, source.shape, source.tokenizer, base, precision=stored_precision(whole), name=source.name)
        stage("running both in llama.cpp")
        require_same_tokens(base, source.tokenizer, rows)
        comparison = compare_lora(base, file, source.tokenizer, rows, references)
    _require_close(comparison, "f32")
    base_command = shlex.join(["slmtune", "export", _place_of_base(artifact, source), "--output-dir", "base"])
    run = f"llama-cli -m base/model-q8_0.gguf --lora {request.output_dir / file.name}"
    return _describe(comparison, rows, "f32", base_command, run)


def _place_of_base(adapter: Adapter, source: Source) -> str:
    """The name of the base model of an adapter, or its folder if it is not on the Hub."""
    is_local = adapter.manifest["parents"]["base_model"]["source"] == "local"
    return str(source.folder) if is_local else source.name


def _read_source(artifact: Adapter | Model, request: ExportRequest) -> Source:
    """Refuse, before any work, what llama.cpp cannot run."""
    if not all(map(importlib.util.find_spec, RUNTIMES)):
        raise InputError(
            f"--format {request.options.format} needs llama.cpp. Install it with: pip install 'slmtune[gguf]'"
        )
    if artifact.manifest.get("head") is not None:
        raise InputError(f"{artifact.path} is an encoder. The export to GGUF supports causal language models only")
    name = str(artifact.manifest["parents"]["base_model"]["name"])
    local = BaseModel(name, artifact.path, "local", "")
    base = base_of(artifact, request.model) if isinstance(artifact, Adapter) else local
    tokenizer, shape = load_tokenizer(artifact.path, base), read_shape(base.folder)
    place_tensors(base.folder, shape)
    read_vocabulary(tokenizer, shape.config.vocab_size)
    return Source(artifact, base.folder, shape, tokenizer, name)


def _trace_model(
    source: Source, request: ExportRequest, rows: Sequence[Example], scratch: Path, stage: Stage
) -> tuple[Path, list[Path]]:
    """The folder of a merged model, and the traces; an adapter is merged in `scratch`, and its own traces come first."""
    if isinstance(source.artifact, Adapter):
        merged = merge_for_export(source.artifact, request, scratch, stage)
        return merged.model.path, [merged.adapter_traces, merged.model_traces]
    stage("tracing the model")
    return source.artifact.path, [_trace(load_merged(source.artifact), rows, scratch / "model")]


def _trace_adapter(
    source: Source, request: ExportRequest, rows: Sequence[Example], scratch: Path, stage: Stage
) -> list[Path]:
    """Trace an adapter over its base as it is, and as it was trained."""
    artifact = source.artifact
    assert isinstance(artifact, Adapter)
    stage("tracing the adapter over its base as trained")
    trained = _trace(load_adapter(artifact, request.model), rows, scratch / "adapter")
    recipe = AdapterRecipe.model_validate(artifact.config)
    if not recipe.is_quantized:
        return [trained]
    stage("tracing the adapter over the unquantised weights")
    plain = load(base_of(artifact, request.model), recipe.model_copy(update={"quantization": "none"}), artifact.path)
    measure_distance(plain, rows, plain.context, trained, keep=scratch / "weights")
    return [trained, scratch / "weights"]


def _trace(loaded: LoadedModel, rows: Sequence[Example], folder: Path) -> Path:
    store_traces(loaded, rows, loaded.context, folder)
    return folder


def _require_close(comparison: Comparison, precision: str) -> None:
    """Refuse a file that is too far from its weights in transformers, or from the adapter as trained."""
    for distance, limit, reference in zip(
        reversed(comparison.distances),
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


def _describe(comparison: Comparison, rows: Sequence[Example], precision: str, *commands: str) -> Files:
    trained, weights = comparison.distances[0], comparison.distances[-1]
    runtime = "llama.cpp (" + ", ".join(f"{name} {metadata.version(name)}" for name in RUNTIMES) + ")"
    return Files(
        Agreement.on(rows, trained, runtime),
        precision,
        commands,
        {
            "mean_kl_of_the_weights": weights.mean_kl,
            "greedy_agreement_of_the_weights": weights.greedy_agreement,
            "tokens_per_second": comparison.tokens_per_second,
            **_losses(trained),
        },
    )


def _losses(distance: Distance) -> dict[str, float]:
    """The loss of the expected answers in nats per token, in llama.cpp and in transformers, where it was measured."""
    losses = {"held_out_loss": distance.loss, "held_out_loss_in_transformers": distance.adapter_loss}
    return {name: loss for name, loss in losses.items() if loss is not None}
