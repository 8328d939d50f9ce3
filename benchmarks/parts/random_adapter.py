"""Write an adapter of rank 16 on all linear layers whose random matrices are so small that answers stay as long as they were.

python benchmarks/parts/random_adapter.py MODEL FOLDER
"""

from __future__ import annotations

import argparse
from pathlib import Path

from finetune.hub.settings import configure_libraries

configure_libraries()

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, writing
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe


def main() -> None:
    """Write the adapter."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    base = find_base(options.model)
    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-4)
    with writing(options.folder, Adapter, overwrite=False) as writer:
        model.save_pretrained(str(writer.folder))
        load_tokenizer(base.folder, base).save_pretrained(writer.folder)
        recipe = AdapterRecipe(model=options.model, quantization="none")
        writer.manifest["config"] = recipe.model_dump(mode="json") | {"model": base.name}
        writer.manifest["parents"] = {"base_model": base.describe()}


if __name__ == "__main__":
    main()
