"""Reads YAML into models and reports unknown keys, wrong values and broken files all at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.errors import ConfigError, did_you_mean

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, not YAML or not a mapping; names the line.
    """
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})"]) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}", [f"not valid YAML ({error.problem})"]) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(str(path), ["the file must map keys to values"])
    return {str(key): value for key, value in data.items()}


def validate(model: type[M], data: Mapping[str, Any], source: str) -> M:
    """Build a pydantic model and report all of its validation errors as one `ConfigError`."""
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(source, [_describe(item, model) for item in error.errors()]) from None


def _describe(item: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        fields: list[str] = list(model.model_fields) if len(item["loc"]) == 1 else []
        return f"unknown key {where!r}. {did_you_mean(where, fields)}" if fields else f"unknown key {where!r}"
    message = item["msg"].removeprefix("Value error, ")
    value = item.get("input")
    got = f", got {value!r}" if isinstance(value, str | int | float | bool) else ""
    return f"{where}: {message}{got}" if where else message
