"""Prompts of a domain: small Jinja files that turn the columns of a row into the question for the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from finetune.errors import ConfigError
from finetune.recipe import Domain

# Sandboxed: a recipe may come from somebody else, and text must never run.
ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)


@dataclass(frozen=True)
class Prompt:
    """A Jinja template; `name` is the file named in errors."""

    name: str
    text: str

    def __reduce__(self) -> tuple[type[Prompt], tuple[str, str]]:
        """Compiled templates cannot be sent between processes."""
        return Prompt, (self.name, self.text)

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns that the prompt uses.

        Raises:
            ConfigError: the text is not a valid template.
        """
        try:
            return frozenset(meta.find_undeclared_variables(ENVIRONMENT.parse(self.text))) - {"choices"}
        except TemplateError as error:
            raise ConfigError(f"{self.name}:{getattr(error, 'lineno', 1)}", [f"not a valid prompt ({error})"]) from None

    @cached_property
    def _template(self) -> Template:
        return ENVIRONMENT.from_string(self.text)

    def render(self, columns: Mapping[str, Any], choices: Sequence[str]) -> str:
        """The question, without blank lines around it.

        Raises:
            ConfigError: the template uses something that does not exist.
        """
        try:
            return self._template.render({**columns, "choices": list(choices)}).strip()
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ConfigError(self.name, [f"the prompt cannot be rendered ({error})"]) from None


def load_prompt(domain: Domain, task: str) -> Prompt:
    """The prompt of a domain's task.

    Raises:
        ConfigError: the file is missing or is not a valid template.
    """
    name = domain.recipe.tasks[task].prompt
    try:
        prompt = Prompt(name, domain.prompt_text(task))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            str(domain.folder / "recipe.yaml"), [f"the prompt {name} cannot be read ({reason})"]
        ) from None
    _ = prompt.columns  # a broken template is an error of the recipe, not of the first row
    return prompt
