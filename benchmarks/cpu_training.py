"""How much the two fast paths for CPUs save, as ratios of step times measured in one run, in turn.

    python benchmarks/cpu_training.py [MODEL]

Compared on the same rows of the finance sample, batch 8, LoRA r=16 on all linear layers, fp32:
  head    loss through the output head at every token  /  at supervised tokens only  (finetune/train/loss.py)
  weights bitsandbytes' packed layers                  /  layers unpacked once       (finetune/quantization.py)
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from finetune.environment import settle

settle()

import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402

from finetune.base_model import find_base  # noqa: E402
from finetune.models import compute_dtype, load_tokenizer  # noqa: E402
from finetune.quantization import keep_linear4bit_unpacked, nf4, unpack_on_cpu  # noqa: E402
from finetune.recipe import DEFAULT_MODEL, AdapterRecipe, load_domain, recipes_folder  # noqa: E402
from finetune.records import Example, Message  # noqa: E402
from finetune.train.loss import supervised_loss  # noqa: E402
from finetune.train.rows import render_rows  # noqa: E402

ROWS, ROUNDS = 8, 5


def adapted(folder: Any, *, unpack: bool) -> Any:
    """The 4-bit base model with LoRA matrices, packed or unpacked."""
    from transformers import AutoModelForCausalLM

    dtype = compute_dtype(AdapterRecipe())
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=nf4(dtype), device_map={"": "cpu"}, dtype=dtype
    )
    if unpack:
        assert unpack_on_cpu(model)
    else:
        keep_linear4bit_unpacked(model)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    return model.train()


def step(model: Any, ids: torch.Tensor, labels: torch.Tensor, *, every_token: bool) -> None:
    """One forward and backward pass."""
    if every_token:
        loss = model(input_ids=ids, labels=labels).loss
    else:
        causal = model.get_base_model()
        hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
        loss = supervised_loss(hidden, labels, causal.get_output_embeddings())
    loss.backward()
    model.zero_grad()


def main() -> None:
    """Measure and print."""
    base = find_base(sys.argv[1] if len(sys.argv) > 1 else DEFAULT_MODEL)
    tokenizer = load_tokenizer(base.folder, base)
    system = load_domain("finance").recipe.tasks["sentiment"].system or ""
    file = recipes_folder() / "datasets/finance/sample/news-train.jsonl"
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()[:ROWS]]
    examples = [
        Example(
            str(n), (Message("system", system), Message("user", row["text"]), Message("assistant", row["label"])), "qa"
        )
        for n, row in enumerate(lines)
    ]
    rows = render_rows(tokenizer, examples, 512).rendered
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[tokenizer.pad_token_id] * (width - len(row.ids))] for row in rows])
    labels = torch.tensor([[*row.labels, *[-100] * (width - len(row.labels))] for row in rows])
    packed, unpacked = adapted(base.folder, unpack=False), adapted(base.folder, unpack=True)
    ways: dict[str, Callable[[], None]] = {
        "packed, every token": lambda: step(packed, ids, labels, every_token=True),
        "packed, supervised tokens": lambda: step(packed, ids, labels, every_token=False),
        "unpacked, supervised tokens": lambda: step(unpacked, ids, labels, every_token=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    tokens = sum(len(row.ids) for row in rows)
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:<28} {middle:6.2f} s a step, {tokens / middle:6.0f} tokens/s (median of {ROUNDS})")
    first, second, third = seconds.values()
    print(f"head     {statistics.median(a / b for a, b in zip(first, second, strict=True)):.2f} times faster")
    print(f"weights  {statistics.median(a / b for a, b in zip(second, third, strict=True)):.2f} times faster")


if __name__ == "__main__":
    main()
