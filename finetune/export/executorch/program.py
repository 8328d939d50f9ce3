"""An encoder in memory → an ExecuTorch program for one row of any length, and such a program in the runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import ModelOutput

from finetune.errors import InputError
from finetune.export.compared import silence
from finetune.models.load import LoadedModel

FILE = "model.pte"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # in this order; the last one only if the model reads it
SHORTEST = 3  # tokens of a row; of two, MobileBERT is a special case to torch.export, which refuses a range with it
STDERR = 2  # the number of the file
SAMPLE = "A sentence that is long enough to have several tokens."


def require_executorch() -> None:
    """Refuse before any work if the library is missing.

    Raises:
        InputError: says what to install.
    """
    if find_spec("executorch") is None:
        raise InputError(
            "--format executorch needs the library of that name. Install it with: pip install 'slmtune[executorch]'"
        )


def convert(loaded: LoadedModel, file: Path) -> None:
    """Write an encoder, without adapters, as a program for CPUs (XNNPACK); its memory is that of the longest row."""
    with silence():
        from transformers.exporters.exporter_executorch import ExecutorchConfig, ExecutorchExporter

        encoding = loaded.tokenizer(SAMPLE, return_tensors="pt")
        sample = {name: encoding[name] for name in INPUTS if name in encoding}
        tokens = torch.export.Dim("tokens", min=SHORTEST, max=loaded.context)
        config = ExecutorchConfig(dynamic=True, dynamic_shapes={name: {1: tokens} for name in sample})
        exporter = ExecutorchExporter()
        exporter.save_program(exporter.export(loaded.model, sample, config=config).program, file)


@contextmanager
def _closed_stderr() -> Iterator[None]:
    """Drop what the runtime, in C++, writes to stderr about files of the processor that it cannot open."""
    kept = os.dup(STDERR)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), STDERR)
    try:
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


class ExecutorchEncoder:
    """Takes the place of the model in `finetune.models.load.LoadedModel`, for one row at a time."""

    device = torch.device("cpu")

    def __init__(self, file: Path, config: Any) -> None:
        self.config = config
        self.runtime = f"ExecuTorch {metadata.version('executorch')}"
        with silence(), _closed_stderr():
            from executorch.runtime import Runtime

            self._method = Runtime.get().load_program(file).load_method("forward")

    def __call__(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """The logits of a row: of labels, or of the first and the last token of an answer."""
        outputs = self._method.execute([inputs[name].contiguous() for name in INPUTS if name in inputs])
        names = ["logits"] if len(outputs) == 1 else ["start_logits", "end_logits"]
        return ModelOutput({name: value.clone() for name, value in zip(names, outputs, strict=True)})
