"""Adapter or Model → Export: the files of one format, written whole and only if they agree with the adapter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from finetune.artifacts import UNHASHED, Adapter, ArtifactWriter, Export, Model, ensure_replaceable, writing
from finetune.cards.model_card import model_card
from finetune.errors import InputError
from finetune.export.request import ExportRequest, ExportResult, Files
from finetune.machine import explain_full_disk, peak_bytes
from finetune.models.find import BaseModel
from finetune.models.open import open_model
from finetune.recipe.options import ExportFormat, ExportOptions, GgufPrecision, OnnxPrecision

Stage = Callable[[str], None]

PRECISIONS: Mapping[ExportFormat, tuple[str, ...]] = {
    "gguf": get_args(GgufPrecision),
    "gguf-lora": ("f32",),
    "onnx": get_args(OnnxPrecision),
    "executorch": ("f32",),
    "vllm": (),
    "fp8": (),
}
WHOLE: tuple[ExportFormat, ...] = ("gguf", "fp8")  # formats of models to which nothing need be added


def export_artifact(request: ExportRequest, on_stage: Stage | None = None) -> ExportResult:
    """Export an adapter, a merged model or a base model for another runtime, and verify the files in that runtime.

    Raises:
        CheckFailedError: the files do not follow the adapter; nothing is left behind.
        InputError: the format does not support the model; names the reason and the way out, before any work.
        DiskFullError: there is no room for the files; nothing is left behind.
    """
    started = time.monotonic()
    _check_options(request.options)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    artifact = _open_artifact(request)
    with (
        writing(request.output_dir, Export, overwrite=request.overwrite) as writer,
        explain_full_disk(writer.folder.parent, "or choose another --output-dir"),
    ):
        files = _write(artifact, request, writer.folder, on_stage or (lambda name: None))
        _describe(writer, artifact, request, files)
    written = [path for path in request.output_dir.rglob("*") if path.is_file() and path.name not in UNHASHED]
    return ExportResult(
        path=request.output_dir,
        format=request.options.format,
        quantization=files.quantization,
        verified=files.agreement is not None,
        mean_kl=files.agreement.mean_kl if files.agreement else None,
        greedy_agreement=files.agreement.greedy if files.agreement else None,
        agreement=files.agreement,
        size_bytes=sum(path.stat().st_size for path in written),
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_bytes(),
        commands=files.commands,
        facts=files.facts,
    )


def _open_artifact(request: ExportRequest) -> Adapter | Model:
    """The adapter or model to export; a base model as a model in which no adapter is merged.

    Raises:
        InputError: a base model is to be exported to a format for adapters.
    """
    opened = open_model(request.artifact, command=request.train_command)
    if not isinstance(opened, BaseModel):
        return opened
    if request.options.format not in WHOLE:
        raise InputError(f"{request.artifact} is a base model, without an adapter. Export it with: --format gguf")
    return Model(opened.folder, {"config": {}, "parents": {"base_model": opened.describe()}})


def _check_options(options: ExportOptions) -> None:
    if options.ollama and options.format != "gguf":
        raise InputError("A Modelfile is for a whole model. Leave out --ollama, or export with: --format gguf")
    chosen, known = options.quantization, PRECISIONS[options.format]
    if chosen is None or chosen in known:
        return
    way_out = f"Choose one of: {', '.join(known)}" if len(known) > 1 else "Leave out --quantization"
    raise InputError(f"--quantization {chosen} does not exist for --format {options.format}. {way_out}")


def _write(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write and verify the files of the format in `folder`."""
    format_ = request.options.format
    if format_ == "onnx":
        from finetune.export.onnx.run import write_onnx

        return write_onnx(artifact, request, folder, stage)
    if format_ == "executorch":
        from finetune.export.executorch.run import write_executorch

        return write_executorch(artifact, request, folder, stage)
    if format_ == "vllm":
        from finetune.export.vllm.run import write_vllm

        return write_vllm(artifact, request, folder, stage)
    if format_ == "fp8":
        from finetune.export.fp8.run import write_fp8

        return write_fp8(artifact, request, folder, stage)
    from finetune.export.gguf.run import write_gguf, write_gguf_lora

    write = {"gguf": write_gguf, "gguf-lora": write_gguf_lora}[format_]
    return write(artifact, request, folder, stage)


def _describe(writer: ArtifactWriter, artifact: Adapter | Model, request: ExportRequest, files: Files) -> None:
    is_base = not artifact.config
    recipe = artifact.config.get("adapter_config") or artifact.config
    options = asdict(request.options) | {"quantization": files.quantization}
    writer.manifest["config"] = options | ({} if is_base else {"adapter_config": dict(recipe)})
    itself = {} if is_base else {artifact.kind: {"fingerprint": artifact.fingerprint}}
    writer.manifest["parents"] = itself | artifact.manifest["parents"]
    writer.manifest["verification"] = files.agreement and asdict(files.agreement)
    writer.manifest["facts"] = files.facts
    if "head" in artifact.manifest:
        writer.manifest["head"] = artifact.manifest["head"]
    (writer.folder / "README.md").write_text(model_card(Export(writer.folder, writer.manifest), None), "utf-8")
