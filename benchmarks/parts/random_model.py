"""Write a model with random weights in the shape of a known one, without any download.

    python benchmarks/parts/random_model.py SHAPE FOLDER

Weights are in bfloat16, and every word is one token of the tokenizer (exact_rows.py writes rows for it). Shapes are those
of the published config.json files, or smaller ones of the same families; shorter contexts are raised to 8,192 tokens, which
costs nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from finetune.hub.settings import configure_libraries

configure_libraries()

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from finetune.models.presets import PRESETS
from finetune.plan.published import PUBLISHED

PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"
WORDS = 200  # enough for every vocabulary below
TEMPLATE = (
    "{% for turn in messages %}{{ '<|start|>' + turn['role'] + '\n' + turn['content'] + '<|end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)


TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
MISTRAL = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
QWEN_2 = {"hidden_size": 512, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 8}
PHI = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
SHAPES: dict[str, dict[str, Any]] = {
    **PUBLISHED,
    "tiny": {"model_type": "gemma2", **TINY, "num_key_value_heads": 2, "vocab_size": 256, "head_dim": 16},
    "mistral-7b": {
        "model_type": "mistral",
        **MISTRAL,
        "num_key_value_heads": 8,
        "vocab_size": 32768,
        "sliding_window": None,
    },
    "qwen2-narrow": {
        "model_type": "qwen2",
        **QWEN_2,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "phi-small": {"model_type": "phi", **PHI, "vocab_size": 51200, "partial_rotary_factor": 0.5},
}
PARAMETERS = {name: preset.parameters for name, preset in PRESETS.items()} | {
    "mistral-7b": 7_248_023_552
}  # version 0.3
CONTEXT: dict[str, Any] = {"max_position_embeddings": 8192, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def write_model(shape: str, folder: Path) -> dict[str, Any]:
    """Write random weights, created on the GPU if there is one, and the tokenizer.

    Raises:
        SystemExit: the number of parameters differs from that of the model that the shape is named after.
    """
    config = AutoConfig.for_model(**SHAPES[shape], **CONTEXT, architectures=None)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if PARAMETERS.get(shape, parameters) != parameters:
        raise SystemExit(f"{shape} has {PARAMETERS[shape]:,} parameters, but this configuration has {parameters:,}")
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return {"shape": shape, "parameters": parameters}


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word, even if transformers replaces it with the tokenizer of the architecture.

    It does so for Qwen2, despite tokenizer.json; such a tokenizer keeps only added tokens.
    """
    words = [PAD, START, END, "<unk>", "user", "assistant", *(f"w{number}" for number in range(WORDS))]
    level = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    level.add_tokens([AddedToken(word, rstrip=True, normalized=False) for word in words])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=level, bos_token=START, eos_token=END, pad_token=PAD, unk_token="<unk>"
    )
    fast.chat_template = TEMPLATE
    return fast


def main() -> None:
    """Write the model, and print its shape and number of parameters."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(write_model(arguments.shape, arguments.folder)))


if __name__ == "__main__":
    main()
