"""Floating-point operations per token that training a model with LoRA needs: one JSON object.

    python benchmarks/parts/model_work.py MODEL [--rank 16]

  flop_token       forward and backward through the linear layers of the blocks, without gradients of their frozen
                   weights (2 + 2 per weight), and LoRA matrices on all of them with gradients (6 per weight)
  flop_supervised  in addition, the output head for a token with loss (2 + 2 per weight)
  flop_attention   scores and weighted sums for a token, to be multiplied by the length of the row: causal, so half of
                   the pairs (forward 2, backward 4, per layer and attention width); sliding windows are ignored
Norms, activation functions and the optimizer are left out, and recomputed operations count once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from finetune.hub.settings import configure_libraries

configure_libraries()

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM


def work(folder: Path, rank: int) -> dict[str, int]:
    """The operations, and the numbers of parameters."""
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
    weights = sum(layer.in_features * layer.out_features for layer in linear)
    lora = sum(rank * (layer.in_features + layer.out_features) for layer in linear)
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    return {
        "flop_token": 4 * weights + 6 * lora,
        "flop_supervised": 4 * head.in_features * head.out_features,
        "flop_attention": 6 * config.num_hidden_layers * width,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "lora_parameters": lora,
    }


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rank", type=int, default=16)
    arguments = parser.parse_args()
    print(json.dumps(work(arguments.model, arguments.rank)))


if __name__ == "__main__":
    main()
