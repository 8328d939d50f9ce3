"""Recipes: what a domain is, how an adapter is trained, and which other options a command takes.

YAML and Jinja only; a recipe never executes code. Every default is defined here and nowhere else; precedence is
flag > `--config FILE.yaml` > recipe > default. An unknown key is an error that suggests the closest one.
"""

from finetune.recipe.adapter import DEFAULT_MODEL, AdapterRecipe, load_adapter_recipe
from finetune.recipe.domain import (
    CUSTOM_DOMAIN,
    Domain,
    DomainRecipe,
    EvalRecipe,
    SourceRecipe,
    TaskRecipe,
    domain_names,
    load_domain,
    recipes_folder,
)

__all__ = [
    "CUSTOM_DOMAIN",
    "DEFAULT_MODEL",
    "AdapterRecipe",
    "Domain",
    "DomainRecipe",
    "EvalRecipe",
    "SourceRecipe",
    "TaskRecipe",
    "domain_names",
    "load_adapter_recipe",
    "load_domain",
    "recipes_folder",
]
