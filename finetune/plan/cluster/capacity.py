"""How long a training takes on which GPU, and what it costs: measured rates where there are any, estimates where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from finetune.artifacts import Corpus
from finetune.corpus.lengths import token_length
from finetune.corpus.open import open_corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError
from finetune.machine import read_size
from finetune.models.presets import find_preset
from finetune.models.tokenizer import find_tokenizer
from finetune.plan.device import Device
from finetune.plan.run import divide_to_fit, plan
from finetune.plan.shapes import shape_of
from finetune.recipe import AdapterRecipe

GPUS = Path(__file__).with_name("gpus.yaml")
SAMPLE = 2_000  # rows whose tokens are counted; the mean of more would hardly differ
# The share of a GPU's operations per second that training uses. An assumption, not a measurement: no GPU was at hand. Small
# models, short rows and weights in 4 bits reach less than the 0.4 to 0.5 of large ones (Chowdhery et al., PaLM, 2022,
# table 3: 0.46).
UTILISATION = 0.25
# Operations per weight and token: a product and a sum, in the forward pass and for the gradient of the input. Frozen weights
# have no gradient of their own, which would be as many again.
FORWARD, BACKWARD = 2, 2


@dataclass(frozen=True)
class Measured:
    """A rate that docs/benchmarks.md has, in tokens of rows per second."""

    model: str
    device: str
    tokens_per_second: float
    source: str


MEASURED = (Measured("smollm2-135m", "2 CPU cores (Xeon, AVX512)", 347.3, "docs/benchmarks.md, Training"),)


@dataclass(frozen=True)
class Gpu:
    """A GPU: memory in bytes, 10¹² operations per second, and what an hour costs, in US dollars, if that is known."""

    name: str
    memory: int
    tflops: float
    source: str
    usd_per_hour: tuple[float, float] | None = None
    price_source: str | None = None


@dataclass(frozen=True)
class Offer:
    """A training on one device; hours and cost are those of one GPU, and N of them take at least an Nth of the hours."""

    device: str
    fits: bool | None  # on one; None if that was not planned
    tokens_per_second: float
    hours: float
    usd: tuple[float, float] | None
    basis: Literal["measured", "scaled from a measurement", "estimate"]
    source: str


@dataclass(frozen=True)
class Capacity:
    """A model and a number of tokens, and what training on them takes on each device."""

    model: str
    tokens: int
    utilisation: float  # assumed by estimates
    offers: Sequence[Offer]


def plan_capacity(recipe: AdapterRecipe, tokens: int, price: float | None = None) -> Capacity:
    """What it takes to train on `tokens` tokens, in all epochs together, on the devices of the table.

    Args:
        price: US dollars per hour of any GPU, instead of those of the table.

    Raises:
        InputError: the model belongs to an unknown family.
    """
    shape = shape_of(recipe.model, recipe.revision)
    passes = FORWARD + BACKWARD + (FORWARD if recipe.gradient_checkpointing else 0)
    operations = passes * shape.linear_parameters
    offers = []
    for gpu in read_gpus():
        device = Device("gpu", gpu.memory, is_given=True)
        fitted = divide_to_fit(recipe, device=device, shape=shape)
        rate = gpu.tflops * 1e12 * UTILISATION / operations
        hours = tokens / rate / 3600
        prices = (price, price) if price is not None else gpu.usd_per_hour
        usd = None if prices is None else (hours * prices[0], hours * prices[1])
        fits = plan(fitted, device=device, shape=shape).fits
        offers.append(Offer(gpu.name, fits, rate, hours, usd, "estimate", gpu.source))
    preset = find_preset(recipe.model)
    name = preset.name if preset else recipe.model
    for measured in MEASURED:
        same = measured.model == name
        rate = measured.tokens_per_second
        if not same:
            rate *= shape_of(measured.model).linear_parameters / shape.linear_parameters
        basis: Any = "measured" if same else "scaled from a measurement"
        offers.append(Offer(measured.device, None, rate, tokens / rate / 3600, None, basis, measured.source))
    return Capacity(recipe.model, tokens, UTILISATION, offers)


def read_gpus() -> list[Gpu]:
    """The GPUs of the table."""
    rows: list[dict[str, Any]] = yaml.safe_load(GPUS.read_text("utf-8"))
    for row in rows:
        row["memory"] = read_size(row["memory"])
        if prices := row.get("usd_per_hour"):
            row["usd_per_hour"] = tuple(prices)
    return [Gpu(**row) for row in rows]


def count_tokens(recipe: AdapterRecipe, place: Path | str, prepare_command: str = Corpus.made_by) -> int:
    """About how many tokens a run of the recipe trains on: those of a sample of rows, times rows and epochs.

    Raises:
        InputError: there are no training rows, or the tokenizer of the model is not available.
    """
    corpus = open_corpus(place, command=prepare_command)
    rows = read_split(corpus, "train")
    if not rows:
        raise InputError(f"The corpus at {place} has no training rows. Prepare it again with more data")
    measure = token_length(find_tokenizer(recipe.model, fetch=True))
    lengths = [min(measure(row)[0], recipe.max_length) for row in rows[:: max(1, len(rows) // SAMPLE)]]
    steps = recipe.max_steps and recipe.max_steps * recipe.effective_batch
    return round(sum(lengths) / len(lengths) * (steps or len(rows) * recipe.num_train_epochs))
