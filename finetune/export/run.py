"""Adapter or Model → Export: the files of one format, written whole and only if they agree with the adapter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from finetune.artifacts import MANIFEST, Adapter, ArtifactWriter, Export, Model, ensure_replaceable, open_any, writing
from finetune.export.request import ExportRequest, ExportResult, Files
from finetune.machine import explain_full_disk, peak_bytes

Stage = Callable[[str], None]


def export_artifact(request: ExportRequest, on_stage: Stage | None = None) -> ExportResult:
    """Export an adapter or a merged model for another runtime, and verify the files in that runtime.

    Raises:
        CheckFailedError: the files do not follow the adapter; nothing is left behind.
        InputError: the format does not support the model; names the reason and the way out, before any work.
        DiskFullError: there is no room for the files; nothing is left behind.
    """
    started = time.monotonic()
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    if request.artifact.is_dir():
        artifact = open_any(request.artifact, (Adapter, Model))
    else:
        artifact = Adapter.open(request.artifact, command=request.train_command)
    assert isinstance(artifact, Adapter | Model)
    with (
        writing(request.output_dir, Export, overwrite=request.overwrite) as writer,
        explain_full_disk(writer.folder.parent, "or choose another --output-dir"),
    ):
        files = _write(artifact, request, writer.folder, on_stage or (lambda name: None))
        _describe(writer, artifact, request, files)
    sizes = [path.stat().st_size for path in request.output_dir.iterdir() if path.name != MANIFEST]
    return ExportResult(
        path=request.output_dir,
        format=request.options.format,
        quantization=files.quantization,
        verified=files.agreement is not None,
        mean_kl=files.agreement.mean_kl if files.agreement else None,
        greedy_agreement=files.agreement.greedy if files.agreement else None,
        agreement=files.agreement,
        size_bytes=sum(sizes),
        seconds=time.monotonic() - started,
        peak_memory_bytes=peak_bytes(),
        commands=files.commands,
        facts=files.facts,
    )


def _write(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write and verify the files of the format in `folder`."""
    from finetune.export.gguf.run import write_gguf, write_gguf_lora

    write = {"gguf": write_gguf, "gguf-lora": write_gguf_lora}[request.options.format]
    return write(artifact, request, folder, stage)


def _describe(writer: ArtifactWriter, artifact: Adapter | Model, request: ExportRequest, files: Files) -> None:
    writer.manifest["config"] = asdict(request.options)
    writer.manifest["parents"] = {
        artifact.kind: {"fingerprint": artifact.fingerprint},
        **artifact.manifest["parents"],
    }
    writer.manifest["verification"] = files.agreement and asdict(files.agreement)
    writer.manifest["facts"] = files.facts
