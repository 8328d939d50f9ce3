"""Which adapters vLLM and SGLang load beside their base model, and the commands that serve them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.errors import InputError
from finetune.recipe.adapter import AdapterRecipe

# vllm/config/lora.py, MaxLoRARanks, and vllm/lora/peft_helper.py. SGLang takes any rank.
MAX_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
WAY_OUT = "Train without these settings, or merge the adapter first (slmtune merge) and serve the merged model"


def find_obstacles(recipe: AdapterRecipe) -> list[str]:
    """The settings of a recipe whose adapters these servers refuse or would compute wrongly."""
    obstacles = []
    if recipe.task in ("classification", "extraction"):
        obstacles.append(f"--task {recipe.task}: they load adapters of causal language models only")
    if recipe.use_dora:
        obstacles.append("--use-dora: they know plain LoRA only")
    if recipe.modules_to_save:
        obstacles.append("--modules-to-save: they load no whole modules")
    if recipe.rank_pattern or recipe.alpha_pattern:
        obstacles.append("--rank-pattern and --alpha-pattern: they scale all layers alike")
    if recipe.lora_r > MAX_RANKS[-1]:
        obstacles.append(f"--lora-r {recipe.lora_r}: vLLM takes ranks up to {MAX_RANKS[-1]}")
    if not isinstance(recipe.target_modules, str) and {"embed_tokens", "lm_head"} & set(recipe.target_modules):
        obstacles.append("--target-modules: not all models take LoRA matrices on embeddings or the output head")
    if recipe.init_lora_weights == "loftq":
        obstacles.append(
            "--init-lora-weights loftq: the adapter corrects quantised weights, and they load the original ones"
        )
    return obstacles


def require_loadable(recipe: AdapterRecipe) -> None:
    """Refuse a recipe whose adapter vLLM and SGLang would not load.

    Raises:
        InputError: names every setting, and the way out.
    """
    if obstacles := find_obstacles(recipe):
        raise InputError(f"vLLM and SGLang cannot load such an adapter: {'; '.join(obstacles)}. {WAY_OUT}")


def max_rank(recipe: AdapterRecipe) -> int:
    """The smallest value of vLLM's --max-lora-rank that has room for the adapter."""
    return next(rank for rank in MAX_RANKS if rank >= recipe.lora_r)


def serve_commands(recipe: AdapterRecipe, parents: Mapping[str, Any], folder: Path) -> tuple[str, str]:
    """The commands of vLLM and SGLang that serve the adapter exported to `folder`, beside its base model in `parents`."""
    parent = parents["base_model"]
    base, name = str(parent["name"]), parents.get("corpus", {}).get("domain") or "adapter"
    sglang = [
        *("python", "-m", "sglang.launch_server", "--model-path", base, "--enable-lora"),
        *("--lora-paths", f"{name}={folder}", "--chat-template", str(folder / "chat_template.jinja")),
    ]
    vllm = vllm_command(base, parent.get("revision"), {name: folder}, max_rank(recipe))
    return shlex.join(vllm), shlex.join(sglang)


def vllm_command(
    base: str, revision: str | None, adapters: Mapping[str, Path], rank: int, options: Sequence[str] = ()
) -> list[str]:
    """The command of vLLM that serves exported adapters, by name, beside their base model; a list of its words.

    Args:
        base: the Hub id or the folder of the base model.
        revision: its revision on the Hub, if it has one.
        adapters: the folders of the exports; all have the chat template of the first.
        rank: the largest `max_rank` of the adapters.
        options: further options of vLLM.
    """
    first = next(iter(adapters.values()))
    return [
        *("vllm", "serve", base, *(["--revision", str(revision)] if revision else []), *options),
        *("--enable-lora", "--max-lora-rank", str(rank)),
        # Without it, requests for one adapter wait until those for another are done.
        *(["--max-loras", str(len(adapters))] if len(adapters) > 1 else []),
        *("--lora-modules", *(f"{name}={folder}" for name, folder in adapters.items())),
        *("--chat-template", str(first / "chat_template.jinja"), "--generation-config", str(first)),
    ]
