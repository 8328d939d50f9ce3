"""The merged model of an adapter that is exported: made for the export, of the weights that the adapter saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune.artifacts import Adapter, Model
from finetune.export.request import ExportRequest
from finetune.merge import MergeRequest, merge_adapter
from finetune.merge.held_out import ROWS
from finetune.recipe import AdapterRecipe


@dataclass(frozen=True)
class Merged:
    """A merged model, and the folders of the traces on held-out rows: of the adapter as trained, and of the model."""

    model: Model
    adapter_traces: Path
    model_traces: Path


def merge_for_export(
    adapter: Adapter, request: ExportRequest, scratch: Path, stage: Callable[[str], None], rows: int = ROWS
) -> Merged:
    """Merge an adapter in the folder `scratch` onto the weights that it saw, so that the format alone can change it.

    Raises:
        CheckFailedError: the merged model is not the adapter.
    """
    recipe = AdapterRecipe.model_validate(adapter.config)
    merge_adapter(
        MergeRequest(
            adapter.path,
            scratch / "merged",
            corpus=request.corpus,
            model=request.model,
            onto="dequantized" if recipe.is_quantized else "original",
            rows=rows,
            traces=scratch,
        ),
        stage,
    )
    return Merged(Model.open(scratch / "merged"), scratch / "adapter", scratch / "model")
