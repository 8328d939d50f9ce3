"""What presets cost and score on the same corpus, as measured with slmtune; figures help to choose one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from finetune.models.presets import Kind, Preset

ModelTask = Literal["classification", "extraction", "generation"]
# The kinds of models for a task. A causal language model can label a text too; it finds no places in a context.
TASK_KINDS: Mapping[ModelTask, tuple[Kind, ...]] = {
    "classification": ("encoder", "causal"),
    "extraction": ("encoder",),
    "generation": ("causal",),
}


@dataclass(frozen=True)
class Measurement:
    """A preset trained and evaluated with default settings.

    Args:
        minutes: of training.
        peak_memory_bytes: of training.
        weighted_f1: of the adapter on held-out rows.
        latency_ms: for one text, one at a time.
    """

    minutes: float
    peak_memory_bytes: int
    weighted_f1: float
    latency_ms: float


# What the figures were measured on, and how; printed below a table with any. Source: benchmarks/label_models.py.
CONDITIONS = (
    "Measured on two cores of a Xeon with AMX, without a GPU, on the bundled finance news: two epochs of 450 rows, weighted\n"
    "F1 of 180 other rows, and the time for one of them; means of two seeds. –: not measured."
)
MEASURED: Mapping[ModelTask, Mapping[str, Measurement]] = {
    "classification": {
        "minilm-l6": Measurement(minutes=0.45, peak_memory_bytes=998_569_984, weighted_f1=0.792, latency_ms=14),
        "smollm2-135m": Measurement(minutes=3.08, peak_memory_bytes=1_550_196_736, weighted_f1=0.850, latency_ms=245),
    }
}


@dataclass(frozen=True)
class Candidate:
    """A preset for a task, and its figures if they were measured."""

    preset: Preset
    measured: Measurement | None


def candidates(presets: Mapping[str, Preset], task: ModelTask) -> list[Candidate]:
    """The presets that a task can use, encoders first, then by size."""
    kinds = TASK_KINDS[task]
    fitting = [preset for preset in presets.values() if preset.kind in kinds]
    fitting.sort(key=lambda preset: (kinds.index(preset.kind), preset.parameters))
    return [Candidate(preset, MEASURED.get(task, {}).get(preset.name)) for preset in fitting]
