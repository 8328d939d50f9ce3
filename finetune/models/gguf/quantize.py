"""Quantises a GGUF file with llama.cpp, and how far that may move the model."""

from __future__ import annotations

from pathlib import Path

import gguf

from finetune.errors import SlmtuneError

UNQUANTIZED = ("f32", "f16", "bf16")
# The precisions, and the largest mean KL of a file from the same weights in transformers, in nats per token. Measured with
# SmolLM2-135M and the finance sample: f16 0.000, q8_0 0.0005, q6_k 0.002, q5_k_m 0.064, q4_k_m 0.006, q3_k_m 0.082.
MAX_KL = {
    "f32": 0.01,
    "f16": 0.01,
    "bf16": 0.01,
    "q8_0": 0.02,
    "q6_k": 0.05,
    "q5_k_m": 0.15,
    "q4_k_m": 0.25,
    "q3_k_m": 0.4,
}
MAX_DRIFT_KL = 0.35  # more, from the adapter over its base as trained: what leaving 4 bits may cost


def quantize(source: Path, target: Path, precision: str) -> None:
    """Write the model in `source` in another precision.

    Raises:
        SlmtuneError: llama.cpp cannot.
    """
    from cyllama.llama import llama_cpp

    llama_cpp.disable_logging()
    settings = llama_cpp.LlamaModelQuantizeParams()
    settings.ftype = int(gguf.LlamaFileType[f"MOSTLY_{precision.upper()}"])
    try:
        llama_cpp.model_quantize(str(source), str(target), settings)
    except RuntimeError as error:
        raise SlmtuneError(
            f"llama.cpp cannot quantise the model to {precision}: {str(error).splitlines()[0]}"
        ) from None
