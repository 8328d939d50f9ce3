"""Recipes: what a domain is, how an adapter is trained, and what a command can be told beside them.

YAML and Jinja only; a recipe never executes code. Every default stands here and nowhere else; precedence is
flag > `--config FILE.yaml` > recipe > default. An unknown key is an error that names the nearest one.
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
