"""Click options: those that several commands share, and those made of the fields of recipes and options."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import click
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from finetune.cli.workspace import Workspace
from finetune.recipe.options import fields_of, shown

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]

ALIASES = {"model": ("--base-model", "--model-name-or-path")}
PATH = click.Path(path_type=Path)

# Fields of an adapter's recipe that decide how much memory its training takes.
PLANNED = (
    *("model", "revision", "load_in_4bit", "compute_dtype", "lora_r", "target_modules", "max_length"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"),
)

output_dir = click.option("--output-dir", "--out", type=PATH, help="Where the result goes.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace an earlier result.")
base_model = click.option("--model", help="Where the adapter's base model lies, if not where it was trained.")


def common(command: F) -> F:
    """--json, -q, -v, --log-format, --offline, --debug: settled before the command's body runs."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from finetune.cli.console import console
        from finetune.hub.settings import configure_libraries

        settings = ("as_json", "quiet", "verbose", "log_format", "debug")
        console.configure(**{name: kwargs.pop(name) for name in settings})
        configure_libraries(offline=kwargs.pop("offline"))
        with console.own_stdout():
            return command(*args, **kwargs)

    options = [
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else, on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no log."),
        click.option("-v", "--verbose", is_flag=True, help="Log details."),
        click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Form of log lines."),
        click.option("--offline", is_flag=True, help="Never use the network."),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
    ]
    return cast(F, _apply(wrapper, options))


def workspace(command: F) -> F:
    """--domain and --run-dir, passed to the command as a `Workspace`."""

    @functools.wraps(command)
    def wrapper(*args: Any, domain: str | None, run_dir: Path | None, **kwargs: Any) -> Any:
        return command(*args, workspace=Workspace.of(domain, run_dir), **kwargs)

    options = [
        click.option("--domain", help="A bundled domain, or the folder of one; its workspace is runs/DOMAIN."),
        click.option("--run-dir", type=PATH, help="Where workspaces lie, instead of runs/."),
    ]
    return cast(F, _apply(wrapper, options))


def fields(
    model: type[Any], only: Sequence[str] = (), *, ranges: bool = False, after: Mapping[str, Decorator] | None = None
) -> Callable[[F], F]:
    """One option per field, passed to the command as a dictionary `given` of those that the user gave.

    The options have no defaults of their own: those stand in the model, and the help shows them.

    Args:
        model: a recipe, or options as `finetune.recipe.options` defines them.
        only: fields that become options, instead of all.
        ranges: let Click refuse what is out of bounds, one value at a time; else the model tells all problems at once.
        after: options that are listed after a field's, and passed by their own names.
    """
    infos = {name: info for name, info in fields_of(model).items() if not only or name in only}
    is_recipe = issubclass(model, BaseModel)

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            values = {name: kwargs.pop(name) for name in infos}
            given = {name: value for name, value in values.items() if value not in (None, ())}
            return command(*args, given=given, **kwargs)

        options = []
        for name, info in infos.items():
            options.append(_option(name, info, is_recipe=is_recipe, ranges=ranges))
            options += [after[name]] if after and name in after else []
        return cast(F, _apply(wrapper, options))

    return decorate


def _option(name: str, info: FieldInfo, *, is_recipe: bool, ranges: bool) -> Decorator:
    look, kind, default, help_ = shown(name, info), info.annotation, info.default, info.description
    if kind is bool:
        if not is_recipe and not default:
            return click.option(look["flag"], name, is_flag=True, default=None, help=help_)
        flags = look["flag"] + "/--no-" + look["flag"][2:]  # what a recipe's file turns on, a flag has to turn off
        return click.option(flags, name, default=None, help=f"{help_}  [{'on' if default else 'off'}]")
    multiple = get_origin(kind) in (tuple, Mapping)
    value = look.get("value", None if multiple else default)
    return click.option(
        *(look["flag"], *ALIASES.get(name, ()), name),
        type=_click_type(info, ranges=ranges),
        multiple=multiple,
        metavar=look.get("metavar"),
        help=help_ if value is None else f"{help_}  [{value}]",
    )


def _click_type(info: FieldInfo, *, ranges: bool) -> Any:
    kind: Any = info.annotation
    if any(isinstance(part, BeforeValidator) for part in info.metadata):
        return str  # the model makes a value out of it
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        kind = str if str in members else members[0]
    elif get_args(kind):  # of a tuple or a mapping, whose option can be given several times
        kind = get_args(kind)[0]
    if ranges and kind in (int, float):
        low = next((part.ge for part in info.metadata if hasattr(part, "ge")), None)
        high = next((part.le for part in info.metadata if hasattr(part, "le")), None)
        return click.IntRange(low, high) if kind is int else click.FloatRange(low, high)
    return PATH if kind is Path else kind


def _apply(command: Callable[..., Any], options: Sequence[Decorator]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command
