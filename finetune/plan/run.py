"""Will it fit? Calculates the peak memory of a training run from config.json, without loading weights or torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from finetune.errors import InputError
from finetune.machine import format_bytes
from finetune.models.presets import PRESETS
from finetune.models.targets import require_targets
from finetune.plan.device import Device, this_device
from finetune.plan.memory import Batch, Breakdown, RowSizes, estimate, full_batch, is_padded
from finetune.plan.model_shape import OUTSIDE, ModelShape
from finetune.plan.shapes import preset_shape, shape_of
from finetune.recipe import AdapterRecipe
from finetune.recipe.adapter import Method, Quantization

GROWTH_SHARE = 0.5  # of the free memory, for larger forward passes than the user asked for
SHORTEST = 128  # tokens; suggesting even shorter rows would not help


@dataclass(frozen=True)
class Suggestion:
    """Options with which training would fit, and the resulting peak memory in bytes."""

    options: str
    peak_bytes: int


@dataclass(frozen=True)
class Plan:
    """Peak memory of a training run on a device, in bytes, and a suggestion if it does not fit."""

    model: str
    parameters: int
    device: str  # "cpu" or "gpu"
    free_bytes: int  # on the device, or what the user allows
    memory_source: Literal["free", "given"]  # of `free_bytes`: "free" if measured, "given" if --memory or --gpu sets it
    fits: bool
    peak_bytes: int
    breakdown: Breakdown
    method: Method
    batch_size: int  # rows, or pairs of answers
    batch_tokens: int  # of the largest forward pass
    max_length: int
    lora_r: int
    quantization: Quantization
    gradient_checkpointing: bool
    suggestion: Suggestion | None

    def summary(self) -> str:
        """The plan in one line."""
        return (
            f"Training takes about {format_bytes(self.peak_bytes)} at its peak ({self.batch_tokens} tokens per forward pass); "
            f"{self.describe_limit(format_bytes(self.free_bytes))}."
        )

    def describe_limit(self, size: str) -> str:
        """A clause that says where the limit `size` comes from."""
        if self.memory_source == "given":
            return f"--memory allows {size}"
        return f"this {'GPU' if self.device == 'gpu' else 'machine'} has {size} free"


def plan(
    recipe: AdapterRecipe,
    *,
    device: Device | None = None,
    rows: RowSizes | None = None,
    shape: ModelShape | None = None,
) -> Plan:
    """Plan a run of `recipe` on a device (None: this machine's).

    Args:
        rows: the rows of the corpus; None: every row has `max_length` tokens, an upper bound for any corpus.
        shape: the shape of the model, if known; None: its config.json is read or downloaded.

    Raises:
        InputError: the model belongs to an unknown family, has none of the target modules, or cannot read rows of
            `max_length` tokens.
        OfflineError, HubError, UnknownNameError: its config.json is not available.
    """
    device = device or this_device()
    shape = shape or shape_of(recipe.model, recipe.revision)
    recipe = recipe.within_context(shape.context)
    _require_targets(shape, recipe)
    batch = _batch(shape, recipe, rows)
    breakdown = estimate(shape, recipe, batch, device)
    fits = breakdown.peak <= device.free
    return Plan(
        model=recipe.model,
        parameters=shape.parameters,
        device=device.kind,
        free_bytes=device.free,
        memory_source="given" if device.is_given else "free",
        fits=fits,
        peak_bytes=breakdown.peak,
        breakdown=breakdown,
        method=recipe.method,
        batch_size=recipe.per_device_train_batch_size,
        batch_tokens=batch.tokens,
        max_length=recipe.max_length,
        lora_r=recipe.lora_r,
        quantization=recipe.quantization,
        gradient_checkpointing=recipe.gradient_checkpointing,
        suggestion=None if fits else _suggest(shape, recipe, device, rows),
    )


def divide_to_fit(
    recipe: AdapterRecipe, *, device: Device, rows: RowSizes | None = None, shape: ModelShape | None = None
) -> AdapterRecipe:
    """The recipe with its effective batch divided into as few forward passes as memory allows.

    The effective batch, and so the result up to rounding, stays the same. If no division fits, the recipe is unchanged.
    Passes grow only where that is faster and keeps the result: with packed rows and without dropout.
    """
    shape = shape or shape_of(recipe.model, recipe.revision)
    if not is_padded(shape, recipe) and not recipe.is_noisy and shape.shares:
        for candidate in _merges(recipe):
            if _estimate(shape, candidate, device, rows).needed <= GROWTH_SHARE * device.free:
                return candidate
    for candidate in (recipe, *recipe.smaller_passes()):
        if _estimate(shape, candidate, device, rows).peak <= device.free:
            return candidate
    return recipe


def require_fit(planned: Plan) -> None:
    """Refuse a plan that does not fit.

    Raises:
        InputError: gives the bytes needed and free, and what would fit.
    """
    if planned.fits:
        return
    way_out = (
        f"Try: {planned.suggestion.options} (about {format_bytes(planned.suggestion.peak_bytes)})"
        if planned.suggestion
        else "No smaller settings that slmtune knows of fit either: free some memory, or use a larger machine"
    )
    overrule = (
        "Raise --memory if training may use more"
        if planned.memory_source == "given"
        else "To set how much memory training may use, whatever is free, add --memory"
    )
    limit = planned.describe_limit(f"{format_bytes(planned.free_bytes)} ({planned.free_bytes} bytes)")
    raise InputError(
        f"Training {planned.model} needs about {format_bytes(planned.peak_bytes)} ({planned.peak_bytes} bytes) and {limit}. "
        f"{way_out}. {overrule}"
    )


def _require_targets(shape: ModelShape, recipe: AdapterRecipe) -> None:
    """Refuse names of modules that the blocks do not have; what a regular expression matches shows when training starts."""
    if isinstance(recipe.target_modules, tuple):
        names = tuple(name.rpartition(".")[2] for name in recipe.target_modules)
        require_targets(names, [*(linear.path for linear in (*shape.linears, *shape.outer)), *OUTSIDE])


def _batch(shape: ModelShape, recipe: AdapterRecipe, rows: RowSizes | None) -> Batch:
    if rows is None:
        return full_batch(recipe)
    return rows.largest(recipe.per_device_train_batch_size, recipe.max_length, padded=is_padded(shape, recipe))


def _estimate(shape: ModelShape, recipe: AdapterRecipe, device: Device, rows: RowSizes | None) -> Breakdown:
    return estimate(shape, recipe, _batch(shape, recipe, rows), device)


def _merges(recipe: AdapterRecipe) -> Iterator[AdapterRecipe]:
    """The recipe with more rows per forward pass and the same effective batch; the largest passes first."""
    rows, effective = recipe.per_device_train_batch_size, recipe.effective_batch
    return (recipe.divide(more) for more in range(effective, rows, -1) if effective % more == 0)


def _suggest(shape: ModelShape, recipe: AdapterRecipe, device: Device, rows: RowSizes | None) -> Suggestion | None:
    """The smallest change that fits: smaller batches, then checkpointing, then shorter rows, then a smaller preset."""
    for candidate, its_shape in _candidates(shape, recipe):
        if (peak := _estimate(its_shape, candidate, device, rows).peak) <= device.free:
            return Suggestion(_options(recipe, candidate), peak)
    return None


def _candidates(shape: ModelShape, recipe: AdapterRecipe) -> Iterator[tuple[AdapterRecipe, ModelShape]]:
    frugal = _with(recipe, gradient_checkpointing=True)
    single = [frugal, *frugal.smaller_passes()][-1]
    candidates = (*recipe.smaller_passes(), frugal, *frugal.smaller_passes())
    yield from ((candidate, shape) for candidate in candidates)
    length = recipe.max_length // 2
    while length >= SHORTEST:
        yield _with(single, max_length=length), shape
        length //= 2
    smaller = [
        preset
        for preset in PRESETS.values()
        if preset.kind == shape.kind and preset.parameters < shape.parameters and preset.context >= recipe.max_length
    ]
    for preset in sorted(smaller, key=lambda preset: -preset.parameters):
        other = _with(recipe, model=preset.name, revision=None)
        its_shape = preset_shape(preset)
        for candidate in (other, *other.smaller_passes(), _with(single, model=preset.name, revision=None)):
            yield candidate, its_shape


def _with(recipe: AdapterRecipe, **changes: Any) -> AdapterRecipe:
    return recipe.model_copy(update=changes)


def _options(recipe: AdapterRecipe, changed: AdapterRecipe) -> str:
    """The differences, as command-line options."""
    batch = ("per_device_train_batch_size", "gradient_accumulation_steps")
    options = []
    for name in ("model", *batch, "gradient_checkpointing", "max_length"):
        value = getattr(changed, name)
        if value != getattr(recipe, name):
            flag = f"--{name.replace('_', '-')}"
            options.append(flag if value is True else f"{flag} {value}")
    return " ".join(options)
