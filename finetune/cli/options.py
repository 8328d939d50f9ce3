"""Click options that several commands share, and those that are made from a recipe's fields."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import click
from pydantic import BaseModel, BeforeValidator

from finetune.cli.workspace import Workspace

if TYPE_CHECKING:
    from finetune.plan import Device

F = TypeVar("F", bound=Callable[..., Any])

ALIASES = {"model": ("--base-model", "--model-name-or-path")}

output_dir = click.option("--output-dir", "--out", type=click.Path(path_type=Path), help="Where the result goes.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace an earlier result.")


PATH = click.Path(path_type=Path)

# Fields of an adapter's recipe that decide how much memory its training takes.
PLANNED = (
    "model",
    "revision",
    "load_in_4bit",
    "compute_dtype",
    "lora_r",
    "target_modules",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "gradient_checkpointing",
)

PREPARATION = (
    click.option(
        "--source",
        "sources",
        multiple=True,
        help="File, folder, pattern, archive, URL or "
        "hf://datasets/ID[@REVISION][:CONFIG][:SPLIT]; replaces the recipe's sources.",
    ),
    click.option("--sample", is_flag=True, help="Use the rows that come with the domain."),
    click.option("--task", "tasks", multiple=True, help="Only this task of the domain."),
    click.option(
        "--include", multiple=True, metavar="ID", help="Also this source of the domain, which is off by default."
    ),
    click.option(
        "--map", "columns", multiple=True, metavar="NAME=COLUMN", help="Which column is text, label, question …"
    ),
    click.option("--group-by", metavar="COLUMN", help="Rows with one value here (a patient, a ticker) share a split."),
    click.option("--instruction", help="The question for rows of text and label without a domain."),
    click.option(
        "--instruct", is_flag=True, default=None, help="Make questions and answers out of documents, by rules."
    ),
    click.option("--chunk-tokens", type=int, help="Longest piece of a long text, in tokens.  [768]"),
    click.option("--language", metavar="CODES", help="Keep these languages (en,de), or any.  [the recipe's, else any]"),
    click.option("--quality/--no-quality", default=None, help="Drop rows that say nothing or repeat themselves.  [on]"),
    click.option("--split-ratio", metavar="A/B/C", help="Shares of train, validation and test.  [0.9/0.05/0.05]"),
    click.option(
        "--split-by-time", metavar="COLUMN[=FROM/FROM]", help="The newest rows are test, those before validation."
    ),
    click.option(
        "--stratify", is_flag=True, default=None, help="Exact shares of each label; added rows may move old ones."
    ),
    click.option("--limit", type=int, help="Keep so many rows of each source and split."),
    click.option("--seed", type=int, help="Decides which rows --limit and the split take.  [42]"),
    click.option("--dedup/--no-dedup", default=None, help="Drop rows that repeat another, exactly or nearly.  [on]"),
    click.option(
        "--near-duplicates",
        type=float,
        metavar="SIMILARITY",
        help="How alike two rows count as one.  [0.8]",
    ),
    click.option(
        "--against",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="CORPUS",
        help="Take no row that this earlier corpus has.",
    ),
    click.option(
        "--decontaminate", multiple=True, metavar="SOURCE", help="Also leave out what gives away this eval set."
    ),
    click.option(
        "--recipe-evals/--no-recipe-evals",
        default=None,
        help="Leave out what gives away the domain's eval sets.  [on]",
    ),
    click.option("--scrub/--no-scrub", default=None, help="Replace e-mail addresses, account and card numbers.  [on]"),
    click.option("--on-error", type=click.Choice(["fail", "skip"]), help="What a broken row or file does.  [fail]"),
    click.option(
        "--accept-noncommercial", is_flag=True, default=None, help="Also use sources that forbid commercial use."
    ),
    click.option("--license", help="Licence of your own rows, as the Hub names it."),
    click.option("--workers", type=int, help="Processes; the corpus is the same with any number.  [all cores]"),
)


def preparation(command: F) -> F:
    """What `slmtune prepare` can be told about sources, cleaning, splits and duplicates."""
    for option in reversed(PREPARATION):
        command = option(command)
    return command


def common(command: F) -> F:
    """--json, -q, -v, --log-format, --offline, --debug: settled before the command's body runs."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from finetune.cli.console import console
        from finetune.hub.settings import configure_libraries

        console.configure(
            as_json=kwargs.pop("as_json"),
            quiet=kwargs.pop("quiet"),
            verbose=kwargs.pop("verbose"),
            log_format=kwargs.pop("log_format"),
            debug=kwargs.pop("debug"),
        )
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
        click.option("--run-dir", type=click.Path(path_type=Path), help="Where workspaces lie, instead of runs/."),
    ]
    return cast(F, _apply(wrapper, options))


def recipe_fields(model: type[BaseModel], only: Sequence[str] = ()) -> Callable[[F], F]:
    """One option a field, or for those in `only`, passed to the command as a dictionary `overrides`; None where not given.

    The options have no defaults of their own: those stand in the model.
    """
    names = list(only or model.model_fields)

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            overrides = {name: kwargs.pop(name) for name in names}
            return command(*args, overrides=overrides, **kwargs)

        return cast(F, _apply(wrapper, [_option(name, model) for name in names]))

    return decorate


def device(gpu: str | None, memory: str | None) -> Device | None:
    """The machine that --gpu or --memory describe; None: this one."""
    from finetune.machine import read_size
    from finetune.plan.device import Device

    if gpu and memory:
        raise click.UsageError("Give --gpu or --memory: training runs on one of them.")
    if gpu:
        return Device("gpu", read_size(gpu))
    return Device("cpu", read_size(memory)) if memory else None


def _option(name: str, model: type[BaseModel]) -> Callable[[Any], Any]:
    field = model.model_fields[name]
    flag = "--" + name.replace("_", "-")
    kind = field.annotation
    default = "" if field.default is None else f"  [{str(field.default).lower() if kind is bool else field.default}]"
    text = (field.description or "") + default
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    reads_text = any(isinstance(part, BeforeValidator) for part in field.metadata)  # the model makes a value out of it
    return click.option(flag, *ALIASES.get(name, ()), name, type=str if reads_text else _click_type(kind), help=text)


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
