"""The settings that a sweep searches, and their values: ranges and choices, as Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, cast

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from finetune.errors import InputError, UnknownNameError
from finetune.recipe import AdapterRecipe
from finetune.recipe.strict import validate
from finetune.sweep.request import Setting
from finetune.train.checkpoints.resume import EVALUATION, FREE

Space = Mapping[str, BaseDistribution]

# Not searched: settings that do not change the weights, and those that change what is compared.
FIXED = (
    FREE
    | EVALUATION
    | {
        *("seed", "max_length", "target_modules", "task", "method", "dpo_beta", "init_adapter"),
        *("load_best_model_at_end", "patience"),
    }
)
SPREAD = 5  # the learning rates of the default space lie between a fifth and five times the recipe's
LARGEST_RATE = 0.9
LOG = ":log"


def default_space(recipe: AdapterRecipe) -> Space:
    """Learning rate, rank, rows per pass and epochs around those of a recipe, at most its own epochs."""
    assert recipe.learning_rate is not None  # AdapterRecipe.for_model filled it in
    rate, rank, rows, epochs = (
        *(recipe.learning_rate, recipe.lora_r),
        *(recipe.per_device_train_batch_size, recipe.num_train_epochs),
    )
    space: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(rate / SPREAD, min(rate * SPREAD, LARGEST_RATE), log=True),
        "lora_r": CategoricalDistribution(sorted({max(rank // 2, 1), rank, min(rank * 2, 1024)})),
        "per_device_train_batch_size": CategoricalDistribution(sorted({max(rows // 2, 1), rows, rows * 2})),
    }
    if recipe.init_adapter is not None:
        del space["lora_r"]  # it is that of the adapter
    if recipe.max_steps is None:
        space["num_train_epochs"] = CategoricalDistribution([round(epochs * part / 3, 3) for part in (1, 2)] + [epochs])
    return space


def read_space(texts: Sequence[str], recipe: AdapterRecipe) -> Space:
    """The space of `--search` options.

    Raises:
        UnknownNameError: there is no such setting.
        InputError: a setting cannot be searched, or its values are not a range or a list.
        ConfigError: a recipe does not allow the values.
    """
    space: dict[str, BaseDistribution] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not separator or not values.strip():
            raise InputError(
                f"--search {text} is not of the form NAME=VALUES. Write, for example, --search learning_rate=1e-4:1e-3:log or "
                "--search lora_r=8,16,32"
            )
        _require_searchable(name, recipe)
        if name in space:
            raise InputError(f"--search {name} is given twice. Give all of its values at once")
        space[name] = _read_range(name, values) if ":" in values else _read_choices(name, values)
    return space


def _require_searchable(name: str, recipe: AdapterRecipe) -> None:
    if name not in AdapterRecipe.model_fields:
        raise UnknownNameError("setting", name, set(AdapterRecipe.model_fields) - FIXED)
    if name in FIXED:
        raise InputError(
            f"--search {name}: a sweep cannot compare runs by this setting. Set it for all trials with "
            f"--{name.replace('_', '-')}, and search learning_rate, lora_r, per_device_train_batch_size or num_train_epochs"
        )
    if name == "num_train_epochs" and recipe.max_steps is not None:
        raise InputError(
            f"--search {name} has no effect, because --max-steps {recipe.max_steps} overrides the epochs. Leave out one of them"
        )


def _read_range(name: str, values: str) -> BaseDistribution:
    is_log = values.endswith(LOG)
    low, _, high = values.removesuffix(LOG).partition(":")
    bounds = [_read(name, end) for end in (low, high)]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in bounds):
        raise InputError(f"--search {name}={values}: this setting has no range. List its values, separated by commas")
    first, last = cast("list[float]", bounds)
    if first >= last or (is_log and first <= 0):
        raise InputError(
            f"--search {name}={values} is not a range. Write the lower end first, both ends above 0 if it ends with {LOG}"
        )
    if isinstance(first, int) and isinstance(last, int):
        return IntDistribution(first, last, log=is_log)
    return FloatDistribution(first, last, log=is_log)


def _read_choices(name: str, values: str) -> BaseDistribution:
    choices = list(dict.fromkeys(_read(name, value) for value in values.split(",")))
    if len(choices) < 2:
        raise InputError(
            f"--search {name}={values} is one value, so there is nothing to search. Set it for all trials with "
            f"--{name.replace('_', '-')}"
        )
    return CategoricalDistribution(choices)


def _read(name: str, text: str) -> Setting:
    """A value of a setting, as a recipe reads it."""
    value = getattr(validate(AdapterRecipe, {name: text.strip()}, "--search"), name)
    if not isinstance(value, Setting):
        raise InputError(f"--search {name}: a sweep searches numbers and words, and this setting has other values")
    return value


def change(recipe: AdapterRecipe, settings: Mapping[str, Any]) -> AdapterRecipe:
    """The recipe of a trial; unless alpha is searched too, it keeps its ratio to the rank, and so the scale of the update.

    Raises:
        ConfigError: the settings do not go together.
    """
    changes = dict(settings)
    if "lora_r" in changes and "lora_alpha" not in changes:
        changes["lora_alpha"] = max(round(recipe.lora_alpha * changes["lora_r"] / recipe.lora_r), 1)
    return validate(AdapterRecipe, recipe.model_dump(exclude_unset=True) | changes, "settings of the trial")


def own_settings(recipe: AdapterRecipe, space: Space) -> dict[str, Setting] | None:
    """The recipe's own values of the settings that are searched; None if one is outside the space."""
    values = {name: getattr(recipe, name) for name in space}
    return values if all(_contains(space[name], value) for name, value in values.items()) else None


def _contains(values: BaseDistribution, value: Setting) -> bool:
    if isinstance(values, CategoricalDistribution):
        return value in values.choices
    assert isinstance(values, FloatDistribution | IntDistribution)
    return isinstance(value, int | float) and values.low <= value <= values.high


def is_log(values: BaseDistribution) -> TypeGuard[FloatDistribution | IntDistribution]:
    """Whether the values are a range that is searched on a logarithmic scale."""
    return isinstance(values, FloatDistribution | IntDistribution) and values.log


def describe(values: BaseDistribution) -> str:
    """The values in words."""
    if isinstance(values, CategoricalDistribution):
        return ", ".join(show(choice) for choice in values.choices)
    assert isinstance(values, FloatDistribution | IntDistribution)
    return f"{show(values.low)} to {show(values.high)}{', logarithmic' if values.log else ''}"


def show(value: Setting) -> str:
    """A value with at most three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
