"""Merge an adapter once, and print how long it took without imports.

    python benchmarks/parts/merge_weights.py SIDE BASE ADAPTER OUT

SIDE: `adapter` writes an adapter with random matrices for all linear layers to ADAPTER; `slmtune` and `replayed` merge tensor
by tensor, the latter with the comparison of every stored tensor; `peft` loads the model in bfloat16, merges and saves it, as
PEFT's documentation has it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from finetune.hub.settings import configure_libraries

configure_libraries(offline=True)

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from finetune.merge.weights.plan import plan_weights, split_shards
from finetune.merge.weights.replay import replay_weights
from finetune.merge.weights.write import write_weights
from finetune.models.heads import build_skeleton

RANK = 16


def write_adapter(base: Path, adapter: Path) -> None:
    """An adapter with random matrices."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    adapted = get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(str(adapter))


def merge_streaming(base: Path, adapter: Path, out: Path, *, replay: bool) -> None:
    """Merge tensor by tensor."""
    shards = split_shards(plan_weights(base, None, adapter))
    out.mkdir()
    write_weights(shards, out)
    if replay:
        replay_weights(shards, out, build_skeleton(base, None), adapter)


def merge_in_memory(base: Path, adapter: Path, out: Path) -> None:
    """Merge with PEFT."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(out)


def main() -> None:
    """Do one side, and print its duration in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["adapter", "slmtune", "replayed", "peft"])
    for name in ("base", "adapter", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    started = time.perf_counter()
    if given.side == "adapter":
        write_adapter(given.base, given.adapter)
    elif given.side == "peft":
        merge_in_memory(given.base, given.adapter, given.out)
    else:
        merge_streaming(given.base, given.adapter, given.out, replay=given.side == "replayed")
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
