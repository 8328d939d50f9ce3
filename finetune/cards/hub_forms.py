"""How the Hub files an artifact: its library, its relation to the base model, and its tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class HubForm:
    """The library that loads an artifact, its relation to the base model and its tags; `runtimes` are those of an export."""

    library: str
    relation: str  # https://huggingface.co/docs/hub/model-cards: adapter, finetune, merge or quantized
    tags: tuple[str, ...] = ()
    runtimes: str = ""


FORMS: Mapping[str, HubForm] = {  # by the kind of an artifact, or the format of an export
    "adapter": HubForm("peft", "adapter"),
    "model": HubForm("transformers", "finetune"),
    "gguf": HubForm("gguf", "quantized", ("gguf",), "llama.cpp"),
    "gguf-lora": HubForm("gguf", "adapter", ("gguf",), "llama.cpp"),
    "onnx": HubForm("transformers.js", "quantized", ("onnx", "transformers.js"), "onnxruntime"),
    "executorch": HubForm("executorch", "quantized", ("executorch",), "ExecuTorch"),
    "vllm": HubForm("peft", "adapter", ("vllm",), "vLLM and SGLang"),
    "fp8": HubForm("transformers", "quantized", ("fp8", "compressed-tensors", "vllm"), "vLLM and SGLang"),
}
