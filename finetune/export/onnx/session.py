"""ONNX files in onnxruntime: they compute what the models of transformers compute, and take their place in a LoadedModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import ModelOutput

Cache = dict[str, Any]  # arrays by the names of the inputs that take them
STEPS = 8  # last tokens of a text that are computed one at a time, as when a model writes


class OnnxModel:
    """A file in onnxruntime, on the CPU."""

    device = torch.device("cpu")

    def __init__(self, file: Path, config: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.config = config
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._inputs = {each.name: each.shape for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def _run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name, for arrays by the names of the inputs, of which those that the file lacks are left out."""
        given = {name: inputs[name] for name in self._inputs}
        values: Sequence[Any] = self._session.run(self._outputs, given)
        return dict(zip(self._outputs, values, strict=True))


class OnnxEncoder(OnnxModel):
    """The file of an encoder."""

    def __call__(self, **inputs: Tensor) -> Mapping[str, Tensor]:
        """The outputs of the model for a batch, by name."""
        outputs = self._run({name: value.numpy() for name, value in inputs.items()})
        return ModelOutput({name: torch.from_numpy(value) for name, value in outputs.items()})


class OnnxDecoder(OnnxModel):
    """The file of a causal language model, which takes tokens and the cache of those before them."""

    def __call__(self, input_ids: Tensor) -> Mapping[str, Tensor]:
        """The logits of one text, (1, tokens, vocabulary): its last tokens one at a time, those before them at once."""
        tokens = input_ids[0].tolist()
        start = max(1, len(tokens) - STEPS)
        parts = [tokens[:start], *([token] for token in tokens[start:])]
        cache, logits = self.empty_cache(), []
        for part in parts:
            one, cache = self.read(part, cache)
            logits.append(one)
        return ModelOutput({"logits": torch.from_numpy(np.concatenate(logits)[None])})

    def empty_cache(self) -> Cache:
        """The cache before the first token."""
        shapes = {name: shape for name, shape in self._inputs.items() if name.startswith("past_key_values.")}
        return {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items()}

    def read(self, tokens: Sequence[int], cache: Cache) -> tuple[Any, Cache]:
        """The logits after each token, (tokens, vocabulary), and the cache that includes them."""
        past = next(iter(cache.values())).shape[2]
        places = np.arange(past, past + len(tokens), dtype=np.int64)[None]
        mask = np.ones((1, past + len(tokens)), np.int64)
        outputs = self._run(
            {"input_ids": np.array([tokens], np.int64), "attention_mask": mask, "position_ids": places, **cache}
        )
        logits = outputs.pop("logits")[0]
        return logits, {name.replace("present.", "past_key_values."): value for name, value in outputs.items()}
