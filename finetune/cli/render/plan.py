"""A plan of memory as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.cli.console import facts, table
from finetune.machine import format_bytes

if TYPE_CHECKING:
    from finetune.plan import Plan

PARTS = {
    "weights": "base model",
    "adapter": "LoRA matrices and their gradients",
    "optimizer": "two moments of each",
    "activations": "kept for the backward pass",
    "logits": "output head, beyond what the backward pass takes",
    "overhead": "libraries, tokenizer, allocator",
}


def render_plan(made: Plan) -> str:
    """Where the memory goes, whether it is there, and what would fit."""
    rows = [[f"{name}: {text}", format_bytes(getattr(made.breakdown, name))] for name, text in PARTS.items()]
    rows.append([f"peak, with {made.batch_tokens} tokens a forward pass", format_bytes(made.peak_bytes)])
    place = "GPU memory" if made.device == "gpu" else "memory"
    found = {
        "model": f"{made.model} ({made.parameters / 1e6:,.0f} M parameters, {_precision(made)})",
        "batch": f"{made.batch_size} rows of at most {made.max_length} tokens",
        "fits": f"{'yes' if made.fits else 'no'}: {format_bytes(made.peak_bytes)} of {format_bytes(made.free_bytes)} {place}",
    }
    if made.suggestion:
        found["what fits"] = f"{made.suggestion.options} ({format_bytes(made.suggestion.peak_bytes)})"
    elif not made.fits:
        found["what fits"] = "nothing smaller that slmtune knows"
    return f"{table(['part', 'bytes'], rows)}\n\n{facts(found)}"


def _precision(made: Plan) -> str:
    if not made.load_in_4bit:
        return "not quantised"
    return "4 bit"
