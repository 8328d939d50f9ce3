"""Encoder → ExecuTorch: converted by transformers, and compared in the runtime with the adapter over its base as trained."""

from __future__ import annotations

from pathlib import Path

from finetune.artifacts import Adapter, Model
from finetune.errors import InputError
from finetune.export.compared import Stage, convert_and_compare, write_settings
from finetune.export.executorch.program import FILE, ExecutorchEncoder, convert, require_executorch
from finetune.export.request import Agreement, ExportRequest, Files
from finetune.models.load import LoadedModel

ROWS = 200  # that are compared, if the corpus has as many
MAX_KL = 0.05  # from the adapter, in nats per row and label, as for ONNX


def write_executorch(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Stage) -> Files:
    """Write an encoder as an ExecuTorch program, with its tokenizer and its configuration.

    Raises:
        InputError: the model is not an encoder, or the library is missing.
        CheckFailedError: the program predicts something else than the adapter.
    """
    if artifact.manifest.get("head") is None:
        raise InputError(
            f"--format executorch exports encoders, and {artifact.path} is a causal language model. Export it with: "
            "--format gguf"
        )
    require_executorch()

    def write(plain: LoadedModel) -> ExecutorchEncoder:
        convert(plain, folder / FILE)
        return ExecutorchEncoder(folder / FILE, plain.model.config)

    compared = convert_and_compare(artifact, request, folder, stage, write, ROWS)
    compared.require_close(MAX_KL, is_exact=True, way_out="Serve the adapter itself with slmtune serve")
    write_settings(compared.plain, folder)
    return Files(
        Agreement.on(compared.rows, compared.distance, compared.exported.model.runtime),
        quantization="f32",
        facts={"largest logit difference from torch": float(f"{compared.gap:.2g}"), **compared.time_rows()},
    )
