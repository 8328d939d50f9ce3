"""Parses what the user typed into requests, targets and keys."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finetune.cli.workspace import RUNS, Workspace
from finetune.errors import InputError
from finetune.machine import count_cores

if TYPE_CHECKING:
    from finetune.plan import Device
    from finetune.serve import ApiKey

log = logging.getLogger(__name__)


def read_preparation(given: Mapping[str, Any], group_by: str | None) -> dict[str, Any]:
    """The fields of a `PrepareRequest`; one worker per core unless the user sets a number.

    Raises:
        InputError: a --map value is malformed, or given twice.
    """
    columns = {}
    for pair in given.get("columns", ()):
        name, _, column = pair.partition("=")
        if not name or not column:
            raise InputError(f"--map {pair} is not of the form NAME=COLUMN. Write, for example, --map text=headline")
        if name.strip() in columns:
            raise InputError(
                f"--map {name.strip()} is given twice. A name stands for one column: join the columns in the file"
            )
        columns[name.strip()] = column.strip()
    if group_by is not None:
        columns["group"] = group_by
    return {"workers": count_cores(), **given, "columns": columns}


def read_target(text: str) -> tuple[str, Path | str]:
    """The name and the location of a target: NAME=ADAPTER, an adapter's path (named after its folder) or a model name."""
    name, separator, value = text.partition("=")
    place = value if separator else text
    return (name if separator else Path(place).name), read_place(place)


def read_place(text: str) -> Path | str:
    """The path of an artifact, or the name of a base model."""
    from finetune.models.find import is_name

    path = Path(text)
    is_path = path.exists() or path.parts[0] == RUNS.name or not is_name(text)
    return path.expanduser() if is_path else text


def held_out_corpus(given: Path | str | None, artifact: object, workspace: Workspace) -> Path | str | None:
    """The corpus whose rows are compared: the given one or, if no artifact is given, that of the workspace, if it has one."""
    if given is not None:
        return given
    if artifact is None and workspace.corpus.exists():
        return workspace.corpus
    missing = "No --corpus is named" if artifact else f"There is no corpus at {workspace.corpus}"
    log.warning("%s: the rows that are compared are general questions of slmtune, not held-out ones.", missing)
    return None


def read_weights(text: str | None) -> tuple[float, ...]:
    """Numbers separated by commas, such as 0.7,0.3.

    Raises:
        InputError: a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"--weights {text} is not a list of numbers. Write, for example, --weights 0.7,0.3") from None


def read_api_keys(path: Path | None) -> tuple[ApiKey, ...]:
    """The API keys in a file, or else those in the environment variable SLMTUNE_API_KEYS, or none.

    Raises:
        InputError: the file cannot be read, or its contents are not keys.
    """
    from finetune.serve.api.keys import VARIABLE

    return _read_keys(path, VARIABLE, is_admin=False)


def read_admin_keys(path: Path | None) -> tuple[ApiKey, ...]:
    """The keys of administrators, in the same way, with SLMTUNE_ADMIN_KEYS. Raises what `read_api_keys` raises."""
    from finetune.serve.api.keys import ADMIN_VARIABLE

    return _read_keys(path, ADMIN_VARIABLE, is_admin=True)


def _read_keys(path: Path | None, variable: str, *, is_admin: bool) -> tuple[ApiKey, ...]:
    from finetune.serve.api.keys import read_keys

    if path is None:
        return read_keys(os.environ[variable], variable, is_admin=is_admin) if variable in os.environ else ()
    try:
        return read_keys(path.read_text("utf-8"), str(path), is_admin=is_admin)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(
            f"The API keys in {path} cannot be read ({reason}). Write a long random string to that file"
        ) from None


def list_adapters(folder: Path | None) -> list[tuple[str, Path]]:
    """The artifacts in a folder with their names, which are those of their folders; none without a folder."""
    if folder is None or not folder.is_dir():
        return []
    return sorted((path.name, path) for path in folder.iterdir() if (path / "manifest.json").is_file())


def key_source(path: Path | None) -> str | None:
    """The command that prints the keys that `read_api_keys` would read, or None if there are none."""
    from finetune.serve.api.keys import VARIABLE

    if path is not None:
        return f"cat {shlex.quote(str(path))}"
    return f"printenv {VARIABLE}" if VARIABLE in os.environ else None


def read_device(gpu: str | None, memory: str | None) -> Device:
    """A GPU with the memory that --gpu gives, or this machine's device, with the memory that --memory gives or what is free.

    Raises:
        UsageError: both are set.
    """
    from finetune.machine import read_size
    from finetune.plan.device import Device, this_device

    if gpu and memory:
        raise click.UsageError("Set either --gpu or --memory: each says how much memory there is.")
    if gpu:
        return Device("gpu", read_size(gpu), is_given=True)
    return this_device(read_memory(memory))


def read_gpu(memory: str | None) -> Device:
    """One GPU of the machines of --print-launch: with the memory that --memory gives, or this machine's.

    Raises:
        InputError: this machine has none, and --memory is not set.
    """
    from finetune.machine import read_size
    from finetune.plan.device import Device, this_device

    if memory:
        return Device("gpu", read_size(memory), is_given=True)
    device = this_device()
    if device.kind == "cpu":
        raise InputError(
            "--print-launch plans for GPUs, and this machine has none. Say how much memory each of them has: --memory 24GiB"
        )
    return device


def read_count(text: str) -> int:
    """Parse a number such as 500000, 20M or 1.5B.

    Raises:
        InputError: `text` is not a number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", text.strip(), re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise InputError(f"--tokens {text} is not a number of tokens. Write, for example, --tokens 20M")
    return round(float(match[1]) * {"": 1, "K": 1e3, "M": 1e6, "B": 1e9}[match[2].upper()])


def without(arguments: Sequence[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    words = list(arguments)
    if option in words:
        place = words.index(option)
        del words[place : place + 2]
    return [word for word in words if not word.startswith(f"{option}=")]


def require_packages(what: str, extra: str, *packages: str) -> None:
    """Refuse `what` if packages of an extra are not installed.

    Raises:
        InputError: names them and the command that installs them.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"{what} needs {' and '.join(missing)}, which cannot be imported. Install with: pip install 'slmtune[{extra}]'"
        )


def read_memory(text: str | None) -> int | None:
    """The bytes that --memory or --max-memory allows; None without it."""
    from finetune.machine import read_size

    return None if text is None else read_size(text)


def resume_command(arguments: Sequence[str]) -> str:
    """The command that resumes the run that these arguments started."""
    return shlex.join(["slmtune", *(argument for argument in arguments if argument != "--resume"), "--resume"])


def same_command(arguments: Sequence[str]) -> str:
    """The command with these arguments."""
    return shlex.join(["slmtune", *arguments])
