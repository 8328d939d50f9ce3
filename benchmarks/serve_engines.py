"""How fast the engines of `slmtune serve` compute the next tokens of many requests, each with one of several adapters.

    python benchmarks/serve_engines.py [--model smollm2-135m] [--threads 2] [--steps 10]

Both engines compute the same sequences after the same prompts with the same adapters of rank 16 on every linear layer, in
one process and by turns. Prints the tokens per second of the fastest step of each, and their ratio; then whether greedy
answers computed together are those computed one by one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from finetune.artifacts import Adapter, writing
from finetune.models.find import BaseModel, find_base
from finetune.models.gguf.families import read_shape
from finetune.models.load import load
from finetune.recipe import AdapterRecipe
from finetune.serve.llama_engine import convert_weights
from finetune.serve.runners.llama_runner import LlamaRunner
from finetune.serve.runners.runner import Extension, Runner
from finetune.serve.runners.transformers_runner import TransformersRunner

CASES = ((1, 0), (1, 1), (4, 4), (16, 0), (16, 1), (16, 8))  # requests, and adapters among which they are divided
ADAPTERS, PROMPT, ANSWER = 8, 40, 40  # how many, and tokens
RECIPE = AdapterRecipe(quantization="nf4")


def make_adapter(folder: Path, base: BaseModel, seed: int) -> Path:
    """An adapter with random matrices."""
    torch.manual_seed(seed)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.folder), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    with writing(folder, Adapter, overwrite=False) as writer:
        model.save_pretrained(str(writer.folder))
        writer.manifest["config"] = RECIPE.model_dump(mode="json") | {"model": base.name}
        writer.manifest["parents"] = {"base_model": base.describe()}
    return folder


def open_prompts(runner: Runner, requests: int, adapters: int) -> list[int]:
    """The slots of prompts that have been computed."""
    slots = []
    for number in range(requests):
        prompt = [(100 + 97 * number + 13 * place) % 40_000 for place in range(PROMPT)]
        opened = runner.open(prompt, f"adapter {number % adapters}" if adapters else None)
        runner.advance([Extension(opened.slot, tuple(prompt[opened.cached :]))])
        slots.append(opened.slot)
    return slots


def measure_speed(runner: Runner, requests: int, adapters: int, steps: int) -> float:
    """Tokens per second of all requests, in the fastest step."""
    slots, best = open_prompts(runner, requests, adapters), float("inf")
    for number in range(steps):
        started = time.perf_counter()
        runner.advance([Extension(slot, (200 + number,)) for slot in slots])
        best = min(best, time.perf_counter() - started)
    for slot in slots:
        runner.close(slot)
    return requests / best


def answer(runner: Runner, requests: Sequence[int]) -> dict[int, list[int]]:
    """The greedy answers to some of 16 prompts for eight adapters, computed together."""
    slots = {}
    for number in requests:
        prompt = [(100 + 97 * number + 13 * place) % 40_000 for place in range(PROMPT)]
        opened = runner.open(prompt, f"adapter {number % ADAPTERS}")
        slots[number] = opened.slot
        if rest := prompt[opened.cached : -1]:
            runner.advance([Extension(opened.slot, tuple(rest))])
    tokens = {number: [(100 + 97 * number + 13 * (PROMPT - 1)) % 40_000] for number in requests}
    for _ in range(ANSWER):
        logits = runner.advance([Extension(slots[number], (tokens[number][-1],)) for number in requests])
        for number, row in zip(requests, logits, strict=True):
            tokens[number].append(int(row.argmax()))
    for slot in slots.values():
        runner.close(slot)
    return tokens


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = find_base(options.model)
    shape = read_shape(base.folder)
    runners: dict[str, Runner] = {
        "llama.cpp": LlamaRunner(convert_weights(base, shape, RECIPE), shape, context=512),
        "transformers": TransformersRunner(load(base, RECIPE)),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(ADAPTERS):
            folder = make_adapter(Path(scratch, str(number)), base, number)
            for runner in runners.values():
                runner.load_adapter(f"adapter {number}", folder)
        for requests, adapters in CASES:
            speeds = {
                name: measure_speed(runner, requests, adapters, options.steps) for name, runner in runners.items()
            }
            figures = ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
            ratio = speeds["llama.cpp"] / speeds["transformers"]
            print(f"{requests} requests, {adapters} adapters: {figures} tokens/s, ratio {ratio:.2f}", flush=True)
        for name, runner in runners.items():
            together = answer(runner, range(16))
            same = sum(answer(runner, [number])[number] == tokens for number, tokens in together.items())
            print(f"{name}: {same} of 16 greedy answers of {ANSWER} tokens are the same one by one", flush=True)


if __name__ == "__main__":
    main()
