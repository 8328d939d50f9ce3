"""Writes a model with the weights of its linear layers in 8-bit floats, in the format of compressed-tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import AutoModelForCausalLM


def quantize_model(folder: Path, out: Path) -> None:
    """Write the model in `folder` to `out`, with a scale for each row of a weight; the output head stays as it is.

    Activations are scaled for each token while the model runs, so no data is needed here.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True, trust_remote_code=False)
    scheme = preset_name_to_scheme("FP8_DYNAMIC", ["Linear"])
    config = QuantizationConfig(config_groups={"linear": scheme}, ignore=["lm_head"], format="float-quantized")
    apply_quantization_config(model, config, show_progress=False)
    module: Any
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            lowest, highest = module.weight.aminmax(dim=-1, keepdim=True)
            module.weight_scale.data.copy_(calculate_qparams(lowest, highest, scheme.weights)[0])
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    model.save_pretrained(out)
    compressor.update_config(out)
