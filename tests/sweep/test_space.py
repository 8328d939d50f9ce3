"""The settings that a sweep searches: what the user writes becomes ranges and choices, or one paragraph."""

from __future__ import annotations

import pytest

from finetune.errors import InputError
from finetune.recipe import AdapterRecipe
from finetune.sweep.space import change, default_space, describe, own_settings, read_space

RECIPE = AdapterRecipe(learning_rate=1e-3)


def test_ranges_and_choices_have_the_types_of_the_recipe() -> None:
    space = read_space(
        ["--learning-rate=1e-4:1e-3:log", "lora_alpha=8:64", "lr_scheduler_type=cosine, linear", "lora_r=8,16,16"],
        RECIPE,
    )
    assert {name: describe(values) for name, values in space.items()} == {
        "learning_rate": "0.0001 to 0.001, logarithmic",
        "lora_alpha": "8 to 64",
        "lr_scheduler_type": "cosine, linear",
        "lora_r": "8, 16",
    }
    assert type(space["lora_alpha"]).__name__ == "IntDistribution"


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        ("learning_rat=1e-4:1e-3", "There is no setting 'learning_rat'. Did you mean 'learning_rate'"),
        ("learning_rate", "is not of the form NAME=VALUES"),
        ("learning_rate=1e-3:1e-4", "is not a range. Write the lower end first"),
        ("lora_dropout=0:0.1:log", "both ends above 0"),
        ("learning_rate=-1:1e-3", "learning_rate: Input should be greater than 0, got '-1'"),
        ("learning_rate=low:high", "learning_rate: Input should be a valid number"),
        ("lora_r=8:4096", "lora_r: Input should be less than or equal to 1024"),
        ("lora_r=16", "is one value, so there is nothing to search"),
        ("packing=true:false", "has no range. List its values"),
        ("model=a,b", "cannot compare runs by this setting"),
        ("mix=finance=0.7,general=0.3", "this setting has other values"),
        ("seed=1,2", "cannot compare runs by this setting"),
    ],
)
def test_what_cannot_be_searched_is_one_paragraph(search: str, problem: str) -> None:
    with pytest.raises(InputError) as error:
        read_space([search], RECIPE)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_setting_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="lora_r is given twice"):
        read_space(["lora_r=8,16", "--lora-r=4:8"], RECIPE)


def test_epochs_cannot_be_searched_if_the_steps_are_fixed() -> None:
    recipe = AdapterRecipe(learning_rate=1e-3, max_steps=10)
    assert "num_train_epochs" not in default_space(recipe)
    with pytest.raises(InputError, match="--max-steps 10 overrides the epochs"):
        read_space(["num_train_epochs=1,2"], recipe)


def test_default_space_contains_the_recipe() -> None:
    assert own_settings(RECIPE, default_space(RECIPE)) == {
        "learning_rate": 1e-3,
        "lora_r": 16,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 3.0,
    }
    assert own_settings(RECIPE, read_space(["lora_r=4,8"], RECIPE)) is None


def test_rank_of_an_adapter_to_start_from_is_kept() -> None:
    assert "lora_r" not in default_space(RECIPE.model_copy(update={"init_adapter": "adapter"}))


def test_rank_changes_without_the_scale_of_the_update() -> None:
    assert change(RECIPE, {"lora_r": 4}).lora_alpha == 8
    assert change(RECIPE, {"lora_r": 4, "lora_alpha": 5}).lora_alpha == 5
