"""Click options: the ones that commands share, and the ones built from the fields of recipes and options."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import click

from finetune.cli.workspace import Workspace
from finetune.errors import InputError
from finetune.storage.address import folder_address, is_address, public_address

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Given = dict[str, Any]  # the options that the user set, by field name
F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]

ALIASES = {"model": ("--base-model", "--model-name-or-path")}


class FilePath(click.Path):
    """A path, also as a `file://` address; only corpora may be at other addresses."""

    def __init__(self, *, or_address: bool = False) -> None:
        super().__init__(path_type=Path)
        self.or_address = or_address

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, or the address as it is; an address that cannot be used is a usage error."""
        scheme, separator, place = str(value).partition("://")
        if separator and self.or_address and is_address(value):
            try:
                return folder_address(value)
            except InputError as error:
                self.fail(str(error), param, ctx)
        if separator and scheme != "file":
            self.fail(
                f"{public_address(str(value))} is an address. Give a path; a bucket can be mounted, or its files copied first",
                param,
                ctx,
            )
        return super().convert(place if separator else value, param, ctx)


PATH, CORPUS = FilePath(), FilePath(or_address=True)

# Fields of an adapter recipe that determine how much memory training takes.
MEMORY_FIELDS = (
    *("model", "revision", "quantization", "compute_dtype", "method", "max_length"),
    *("lora_r", "target_modules", "use_dora", "rank_pattern", "modules_to_save"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"),
)

output_dir = click.option("--output-dir", "--out", type=PATH, help="Folder for the result.")
memory = click.option("--memory", help="Memory that training may use, such as 6GiB, instead of what is free.")
keep_rows = click.option(
    "--keep-rows/--no-keep-rows", default=True, help="Keep the corpus's tokens in the user's cache, for the next run."
)
in_4bit = click.Option(
    ["--load-in-4bit/--no-load-in-4bit"], default=None, help="The same as --quantization nf4, or none."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace an existing result.")
base_model = click.option("--model", help="Base model of the adapter, if it is no longer where it was during training.")


def common(command: F) -> F:
    """--json, -q, -v, --log-format, --offline, --debug: applied before the command's body runs."""

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
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object to stdout and nothing else."),
        click.option("-q", "--quiet", is_flag=True, help="Show no progress and no log."),
        click.option("-v", "--verbose", is_flag=True, help="Log more details."),
        click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Format of log lines."),
        click.option("--offline", is_flag=True, help="Never use the network."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ]
    return cast(F, _apply(wrapper, options))


def workspace(command: F) -> F:
    """--domain and --run-dir, passed to the command as a `Workspace`."""

    @functools.wraps(command)
    def wrapper(*args: Any, domain: str | None, run_dir: Path | None, **kwargs: Any) -> Any:
        return command(*args, workspace=Workspace.of(domain, run_dir), **kwargs)

    options = [
        click.option("--domain", help="A bundled domain or a domain folder; the workspace is runs/DOMAIN."),
        click.option("--run-dir", type=PATH, help="Folder that contains the workspaces, instead of runs/."),
    ]
    return cast(F, _apply(wrapper, options))


class Command(click.Command):
    """A command that builds the options of `fields` when it parses or describes them: `slmtune --help` does neither."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The arguments and options, with those of `fields` in their places."""
        self.params = [
            option for param in self.params for option in (param.build() if isinstance(param, Fields) else [param])
        ]
        return super().get_params(ctx)


def command(name: str | None = None) -> Callable[[Callable[..., Any]], Command]:
    """Turn a function into a `Command`, named after the function unless `name` is given."""
    return click.command(name, cls=Command)


class Fields(click.Option):
    """Holds the place of the options that `build` returns."""

    def __init__(self, declarations: Sequence[str], build: Callable[[], list[click.Option]]) -> None:
        super().__init__(declarations, expose_value=False)
        self.build = build


def fields(
    location: str, only: Sequence[str] = (), *, ranges: bool = False, after: Mapping[str, click.Option] | None = None
) -> Callable[[F], F]:
    """One option per field; the values that the user sets reach the command as the dictionary `given`.

    The options themselves have no defaults: these are in the model, and the help shows them.

    Args:
        location: module:class of a recipe, or of options as `finetune.recipe.options` defines them.
        only: the fields that become options; empty: all.
        ranges: let Click refuse values out of bounds, one at a time; else the model reports all problems at once.
        after: options to list after a field's option, passed to the command by their own names.
    """

    @functools.cache
    def load() -> tuple[dict[str, FieldInfo], bool]:
        from pydantic import BaseModel

        from finetune.recipe.option_fields import fields_of

        module, _, name = location.partition(":")
        model = getattr(import_module(module), name)
        infos = {name: info for name, info in fields_of(model).items() if not only or name in only}
        return infos, issubclass(model, BaseModel)

    def build() -> list[click.Option]:
        infos, is_recipe = load()
        options = []
        for name, info in infos.items():
            options.append(_option(name, info, is_recipe=is_recipe, ranges=ranges))
            options += [after[name]] if after and name in after else []
        return options

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            values = {name: kwargs.pop(name) for name in load()[0]}
            given = {name: value for name, value in values.items() if value not in (None, ())}
            return command(*args, given=kwargs.pop("given", {}) | given, **kwargs)

        return cast(F, click.option("--fields", cls=Fields, build=build)(wrapper))

    return decorate


def _option(name: str, info: FieldInfo, *, is_recipe: bool, ranges: bool) -> click.Option:
    from finetune.recipe.option_fields import flag_display

    display, kind, default, help_ = flag_display(name, info), info.annotation, info.default, info.description
    if kind is bool:
        if not is_recipe and not default:
            return click.Option([display["flag"], name], is_flag=True, default=None, help=help_)
        flags = display["flag"] + "/--no-" + display["flag"][2:]  # the flag can undo what a recipe turns on
        return click.Option([flags, name], default=None, help=f"{help_}  [{'on' if default else 'off'}]")
    multiple = get_origin(kind) in (tuple, Mapping)
    value = display.get("value", None if multiple else default)
    return click.Option(
        [display["flag"], *ALIASES.get(name, ()), name],
        type=_click_type(info, ranges=ranges),
        multiple=multiple,
        metavar=display.get("metavar"),
        help=help_ if value is None else f"{help_}  [{value}]",
    )


def _click_type(info: FieldInfo, *, ranges: bool) -> Any:
    from pydantic import BeforeValidator

    kind: Any = info.annotation
    if any(isinstance(part, BeforeValidator) for part in info.metadata):
        return str  # the model parses it
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        if all(get_origin(member) is Literal for member in members):
            return click.Choice([*dict.fromkeys(value for member in members for value in get_args(member))])
        kind = str if str in members else members[0]
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_args(kind):  # a tuple or a mapping: the option can be repeated
        kind = get_args(kind)[0]
    if ranges and kind in (int, float):
        low = next((part.ge for part in info.metadata if hasattr(part, "ge")), None)
        high = next((part.le for part in info.metadata if hasattr(part, "le")), None)
        return click.IntRange(low, high) if kind is int else click.FloatRange(low, high)
    return {Path: PATH, Path | str: CORPUS}.get(kind, kind)


def _apply(command: Callable[..., Any], options: Sequence[Decorator]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command
