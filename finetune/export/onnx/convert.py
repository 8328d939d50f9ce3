"""A model in memory → an ONNX file for rows and texts of any length, in float32 or with weights in 8 bits."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from finetune.errors import InputError
from finetune.export.compared import silence
from finetune.export.onnx.decoder import name_tensors, sample_inputs
from finetune.models.load import LoadedModel
from finetune.recipe.options import OnnxPrecision

FILES: dict[OnnxPrecision, str] = {  # where transformers.js looks for them: dtype "fp32", and "q8", its default
    "f32": "onnx/model.onnx",
    "int8": "onnx/model_quantized.onnx",
}
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31 - 2**24  # bytes of weights in the file itself, which is a protocol buffer; of more, they are beside it
SAMPLE = "A sentence that is long enough to have several tokens."


def require_onnx() -> None:
    """Refuse before any work if a library is missing.

    Raises:
        InputError: names it, and what to install.
    """
    for library in LIBRARIES:
        if find_spec(library) is None:
            raise InputError(f"{library} writes and runs ONNX files. Install it with: pip install 'slmtune[onnx]'")


def convert(loaded: LoadedModel, precision: OnnxPrecision, file: Path) -> None:
    """Write a model, without adapters, as one ONNX file; weights of more than 2 GiB are written beside it."""
    if loaded.head is None:
        program = trace(loaded.model, sample_inputs(loaded.model), precision)
        name_tensors(program, loaded.model.config)
    else:
        program = trace(loaded.model, sample_texts(loaded.tokenizer), precision)
    save(program, file)


def trace(model: Any, sample: dict[str, Any], precision: OnnxPrecision) -> Any:
    """The ONNX program of a model, for inputs of any size that are named as those of the sample."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from onnxruntime.quantization import QuantType
    from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    # Weights with a sign, the default, overflow in sums of 16 bits on processors with AVX2 or AVX512 and without VNNI
    # (onnxruntime.ai, "Quantize ONNX Models", on U8S8).
    dynamic = OnnxRuntimeDynamicConfig(per_channel=True, weight_type=QuantType.QUInt8)
    quantizer = OnnxRuntimeQuantizer(dynamic) if precision == "int8" else None
    config = OnnxConfig(dynamic=True, quantizer=quantizer)
    with silence():
        program = OnnxExporter().export(model, sample, config=config).program
    ClearMetadataAndDocStringPass()(program)  # it has the paths of the source files that were traced
    return program


def save(program: Any, file: Path) -> None:
    """Write a program; weights of more than 2 GiB go into a file beside it."""
    import onnx_ir

    file.parent.mkdir(parents=True, exist_ok=True)
    weights = sum(value.const_value.nbytes for value in program.graph.initializers.values())
    onnx_ir.save(program, str(file), external_data=f"{file.name}_data" if weights > LARGEST else None)


def sample_texts(tokenizer: Any) -> dict[str, Any]:
    """What an encoder reads: the inputs that its tokenizer makes.

    Two rows of different length: with one row, or rows without padding, the sizes or the mask would be taken as constant.
    """
    return dict(tokenizer([SAMPLE, f"{SAMPLE} {SAMPLE}"], padding=True, return_tensors="pt"))
