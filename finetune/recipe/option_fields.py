"""The fields of options: what a default, a description and bounds become, and how values are checked against them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from finetune.errors import ConfigError

T = TypeVar("T")


def option(default: T, description: str, *, ge: float | None = None, le: float | None = None, **display: str) -> T:
    """A field with the help text and the bounds of its flag.

    `display` overrides what the help derives from the field: `flag`, `metavar`, and `value` for the default.
    """
    info = Field(default, description=description, ge=ge, le=le, json_schema_extra={**display})
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: copy(default), metadata={"info": info})
    return dataclasses.field(default=default, metadata={"info": info})


def fields_of(options: type[Any]) -> dict[str, FieldInfo]:
    """The fields of a recipe, or the fields of a dataclass that `option` defined, by name."""
    if issubclass(options, BaseModel):
        return dict(options.model_fields)
    types = get_type_hints(options)
    return {
        item.name: FieldInfo.from_annotated_attribute(types[item.name], item.metadata["info"])
        for item in dataclasses.fields(options)
        if "info" in item.metadata
    }


@cache
def _validators(options: type[Any]) -> dict[str, tuple[FieldInfo, TypeAdapter[Any]]]:
    """The fields of options with what checks their values, which takes longer to make than to use."""
    kinds: dict[str, Any] = {name: Annotated[info.annotation, info] for name, info in fields_of(options).items()}
    return {name: (info, TypeAdapter(kinds[name])) for name, info in fields_of(options).items()}


def flag_display(name: str, info: FieldInfo) -> dict[str, Any]:
    """How the help displays a field: `flag`, and whatever `option` overrides."""
    extra = info.json_schema_extra
    return {"flag": f"--{name.replace('_', '-')}", **(extra if isinstance(extra, dict) else {})}


def check(options: Any, problems: Sequence[str] = ()) -> None:
    """Refuse values that are out of bounds, together with the `problems` found elsewhere.

    Raises:
        ConfigError: lists all problems at once.
    """
    errors = []
    kind: Any = type(options)
    for name, (info, validator) in _validators(kind).items():
        value = getattr(options, name)
        try:
            validator.validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input should", "it must", 1)
            errors.append(f"{flag_display(name, info)['flag']} {value} cannot be used: {reason}")
    if errors or problems:
        raise ConfigError("command line", [*errors, *problems])
