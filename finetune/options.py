"""Click options that several commands share, and those that are made from a recipe's fields."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import click
from pydantic import BaseModel

from finetune.workspace import Workspace

F = TypeVar("F", bound=Callable[..., Any])

ALIASES = {"model": ("--base-model", "--model-name-or-path")}

output_dir = click.option("--output-dir", "--out", type=click.Path(path_type=Path), help="Where the result goes.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace an earlier result.")


def common(command: F) -> F:
    """--json, -q, -v, --log-format, --offline, --debug: settled before the command's body runs."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from finetune.console import console
        from finetune.environment import settle

        console.configure(
            as_json=kwargs.pop("as_json"),
            quiet=kwargs.pop("quiet"),
            verbose=kwargs.pop("verbose"),
            log_format=kwargs.pop("log_format"),
            debug=kwargs.pop("debug"),
        )
        settle(offline=kwargs.pop("offline"))
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
        click.option("--run-dir", type=click.Path(path_type=Path), help="Where workspaces lie, instead of runs/."),
    ]
    return cast(F, _apply(wrapper, options))


def recipe_fields(model: type[BaseModel]) -> Callable[[F], F]:
    """One option a field, passed to the command as a dictionary `overrides`; None where not given.

    The options have no defaults of their own: those stand in the model.
    """
    names = list(model.model_fields)

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            overrides = {name: kwargs.pop(name) for name in names}
            return command(*args, overrides=overrides, **kwargs)

        return cast(F, _apply(wrapper, [_option(name, model) for name in names]))

    return decorate


def _option(name: str, model: type[BaseModel]) -> Callable[[Any], Any]:
    field = model.model_fields[name]
    flag = "--" + name.replace("_", "-")
    kind = field.annotation
    default = "" if field.default is None else f"  [{str(field.default).lower() if kind is bool else field.default}]"
    text = (field.description or "") + default
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    return click.option(flag, *ALIASES.get(name, ()), name, type=_click_type(kind), help=text)


def _click_type(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        return str if str in members else members[0]
    return kind


def _apply(command: Callable[..., Any], options: list[Callable[[Any], Any]]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command
