"""Adapter or Model → FP8: quantised by compressed-tensors, and compared with the adapter as trained."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from importlib import metadata
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, Model
from finetune.errors import CheckFailedError, InputError
from finetune.export.compared import max_length
from finetune.export.fp8.weights import require_rounded
from finetune.export.merged import merge_for_export
from finetune.export.request import Agreement, ExportRequest, Files
from finetune.merge.distance import measure_distance, store_traces
from finetune.merge.held_out import choose_rows
from finetune.merge.request import Distance
from finetune.models.load import LoadedModel, load_merged
from finetune.models.tokenizer import save_tokenizer
from finetune.records import Example

LIBRARY = "compressed_tensors"
# The largest mean KL in nats per token from the same weights unquantised, and from the adapter over its base as trained.
# docs/guide/export.md says how they were found.
MAX_KL, MAX_TRAINED_KL = 0.05, 0.4


def write_fp8(artifact: Adapter | Model, request: ExportRequest, folder: Path, stage: Callable[[str], None]) -> Files:
    """Write a model whose linear layers have 8 bits in `folder`; an adapter is merged first.

    Raises:
        CheckFailedError: the quantised model does not follow the adapter.
        InputError: the model is an encoder, or the library is missing.
    """
    if artifact.manifest.get("head") is not None:
        raise InputError(
            f"{artifact.path} is an encoder, which --format fp8 does not support. Export it to: --format onnx"
        )
    if importlib.util.find_spec(LIBRARY) is None:
        raise InputError("--format fp8 needs compressed-tensors. Install it with: pip install 'slmtune[fp8]'")
    from finetune.export.fp8.quantize import quantize_model

    with TemporaryDirectory(dir=folder) as scratch:
        model, references = artifact, []
        if isinstance(artifact, Adapter):
            merged = merge_for_export(artifact, request, Path(scratch), stage)
            model, references = merged.model, [merged.adapter_traces]
        assert isinstance(model, Model)
        plain = load_merged(model)
        rows = choose_rows(request.corpus, plain.tokenizer, None)
        length = max_length(artifact)
        stage("tracing the model")
        store_traces(plain, rows, length, Path(scratch, "exact"))
        stage("quantising the model")
        quantize_model(model.path, folder)
        require_rounded(model.path, folder)
        save_tokenizer(plain.tokenizer, folder, is_encoder=False)
        stage("running the quantised model")
        distances = _measure(plain, folder, rows, length, [*references, Path(scratch, "exact")])
    trained, weights = distances[0], distances[-1]
    _require_close(weights, trained)
    return Files(
        Agreement.on(rows, trained, _runtime()),
        "e4m3",
        commands=tuple(
            shlex.join([*words, str(request.output_dir)])
            for words in (("vllm", "serve"), ("python", "-m", "sglang.launch_server", "--model-path"))
        ),
        facts={
            "mean_kl_of_the_weights": weights.mean_kl,
            "greedy_agreement_of_the_weights": weights.greedy_agreement,
        },
    )


def _measure(
    plain: LoadedModel, folder: Path, rows: Sequence[Example], length: int, references: Sequence[Path]
) -> list[Distance]:
    """The distances of the stored model, whose activations are rounded as on a GPU, from each of the traced ones."""
    with redirect_stderr(StringIO()):  # compressed-tensors shows progress bars here whatever TQDM_DISABLE says
        stored = AutoModelForCausalLM.from_pretrained(
            folder, dtype=plain.model.dtype, device_map={"": plain.model.device}, local_files_only=True
        )
        loaded = replace(plain, model=stored.eval())
        return [measure_distance(loaded, rows, length, reference) for reference in references]


def _require_close(weights: Distance, trained: Distance) -> None:
    if weights.mean_kl <= MAX_KL and trained.mean_kl <= MAX_TRAINED_KL:
        return
    raise CheckFailedError(
        f"In 8-bit floats, the model does not follow the adapter: mean KL {trained.mean_kl:.4f} nats (limit {MAX_TRAINED_KL}), "
        f"and {weights.mean_kl:.4f} from the unquantised weights (limit {MAX_KL}). Nothing was written. Merge the adapter "
        "(slmtune merge) and serve the merged model unquantised"
    )


def _runtime() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("transformers", "compressed-tensors"))
    return f"{versions} (vLLM itself was not run)"
