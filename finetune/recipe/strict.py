"""Reads YAML into models and reports unknown keys, wrong values and broken files all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def validate(model: type[M], data: Mapping[str, Any], source: str, file: Path | None = None) -> M:
    """Build a pydantic model and report all of its validation errors as one `ConfigError`.

    `file` is the YAML file of the data, so that each error can name its line.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        problems = [_describe(item, model) for item in error.errors()]
        if file is not None:
            first, *others = (_line_of(file, item["loc"]) for item in error.errors())
            source = f"{source}:{first}"
            problems[1:] = [f"line {line}: {problem}" for line, problem in zip(others, problems[1:], strict=True)]
        raise ConfigError(source, problems) from None


def _line_of(file: Path, keys: Sequence[int | str]) -> int:
    """The line of a value in a YAML file, or of the closest thing around it that is there."""
    node = yaml.compose(file.read_text("utf-8"), yaml.SafeLoader)
    line = 0
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((name, value) for name, value in node.value if name.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line
    return line + 1


def _describe(item: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        fields: list[str] = list(model.model_fields) if len(item["loc"]) == 1 else []
        return f"unknown key {where!r}. {did_you_mean(where, fields)}" if fields else f"unknown key {where!r}"
    message = item["msg"].removeprefix("Value error, ")
    value = item.get("input")
    got = f", got {value!r}" if isinstance(value, str | int | float | bool) else ""
    return f"{where}: {message}{got}" if where else message
