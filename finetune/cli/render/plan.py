"""Renders plans as text: what would be trained and how much memory it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from finetune.cli.console import facts, table
from finetune.machine import format_bytes

if TYPE_CHECKING:
    from finetune.plan import Plan
    from finetune.train import TrainPlan

UNITS = {"sft": "rows", "dpo": "pairs of answers, each"}
PARTS = {
    "weights": "base model",
    "adapter": "LoRA matrices and their gradients",
    "optimizer": "two moments per LoRA parameter",
    "activations": "kept for the backward pass",
    "logits": "output head, beyond the memory of the backward pass",
    "overhead": "libraries, tokenizer, allocator",
    "loading": "the file of the weights while they are read",
}


def render_plan(plan: Plan) -> str:
    """Where the memory goes, whether there is enough of it, and what would fit."""
    rows = [[f"{name}: {text}", format_bytes(getattr(plan.breakdown, name))] for name, text in PARTS.items()]
    rows.append([f"peak, with {plan.batch_tokens} tokens per forward pass", format_bytes(plan.peak_bytes)])
    memory = ("GPU memory" if plan.device == "gpu" else "memory") + (" free" if plan.memory_source == "free" else "")
    rest = {
        "model": f"{plan.model} ({plan.parameters / 1e6:,.0f} M parameters, {_precision(plan)})",
        "batch": f"{plan.batch_size} {UNITS[plan.method]} of at most {plan.max_length} tokens",
        "fits": f"{'yes' if plan.fits else 'no'}: {format_bytes(plan.peak_bytes)} of {format_bytes(plan.free_bytes)} {memory}",
    }
    if plan.suggestion:
        rest["what fits"] = f"{plan.suggestion.options} ({format_bytes(plan.suggestion.peak_bytes)})"
    elif not plan.fits:
        rest["what fits"] = "no settings that slmtune knows of"
    return f"{table(['part', 'bytes'], rows)}\n\n{facts(rest)}"


def _precision(plan: Plan) -> str:
    return "not quantised" if plan.quantization == "none" else plan.quantization


def render_training_plan(plan: TrainPlan) -> str:
    """The result of `train --dry-run`."""
    return facts(
        {
            "base model": plan.model,
            "rows": f"{plan.rows}{describe_mixture(plan.mixture)}",
            "steps": plan.steps,
            "tokens per epoch": f"{plan.tokens_per_epoch} ({plan.supervised_tokens_per_epoch} supervised)",
            "peak memory": _memory(plan),
            "best step by": "nothing: no evaluations" if plan.metric is None else plan.metric.replace("_", " "),
            "longest row": f"{plan.longest} tokens ({plan.truncated} rows truncated)",
            **{name.replace("_", " "): value for name, value in plan.recipe.model_dump().items() if value is not None},
        }
    )


def describe_mixture(mixture: Mapping[str, int]) -> str:
    """The sources of an epoch's rows, in brackets, unless they are those of the corpus."""
    return f" per epoch ({', '.join(f'{name} {rows}' for name, rows in mixture.items())})" if mixture else ""


def _memory(plan: TrainPlan) -> str:
    if plan.memory is None:
        return "unknown for this model family"
    source = "free" if plan.memory.memory_source == "free" else "allowed"
    peak = f"{format_bytes(plan.memory.peak_bytes)} of {format_bytes(plan.memory.free_bytes)} {source}"
    if plan.memory.fits:
        return peak
    return f"{peak}: does not fit" + (f"; try {plan.memory.suggestion.options}" if plan.memory.suggestion else "")
