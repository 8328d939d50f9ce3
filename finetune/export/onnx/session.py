"""An ONNX file in onnxruntime: the logits of an encoder, as transformers gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import ModelOutput


class OnnxEncoder:
    """Takes the place of the model in `finetune.models.load.LoadedModel`, on the CPU."""

    device = torch.device("cpu")

    def __init__(self, file: Path, config: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.config = config
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._outputs = [each.name for each in self._session.get_outputs()]

    def __call__(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """The outputs of the model for a batch, by name."""
        given = {name: inputs[name].numpy() for name in self._inputs}
        values: Sequence[Any] = self._session.run(self._outputs, given)
        return ModelOutput({name: torch.from_numpy(each) for name, each in zip(self._outputs, values, strict=True)})
