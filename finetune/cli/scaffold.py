"""Creates the folder of a new domain, which works as it is and is meant to be edited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from finetune.artifacts import make_folder, write_aside
from finetune.errors import InputError
from finetune.recipe import CUSTOM_DOMAIN, domain_names, load_domain

TEMPLATE = Path(__file__).parent / "domain_template"
NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
LONGEST = 40


def new_domain(name: str, folder: Path) -> Path:
    """Write the files of a domain called `name` to `folder`, which must not exist yet: all of them or none.

    Raises:
        InputError: the name is not allowed, or the folder exists or cannot be written.
    """
    _check_name(name)
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} already exists and was left as it is. Choose another name or --output-dir")
    values = {"__name__": name, "__title__": name.replace("-", " ").capitalize(), "__folder__": folder.resolve().name}
    try:
        with write_aside(folder) as staging:
            for path, text in _template_files():
                target = staging / path
                make_folder(target.parent)
                for mark, value in values.items():
                    text = text.replace(mark, value)
                target.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {error.strerror or error}. Choose another --output-dir") from None
    load_domain(str(folder))  # the template is a valid recipe with any name
    return folder


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise InputError(
            f"{name!r} is not allowed as the name of a domain. Use at most {LONGEST} lower-case letters, digits and single "
            "hyphens, starting with a letter, such as contract-law"
        )
    used = [*domain_names(), CUSTOM_DOMAIN]
    if name in used:
        raise InputError(
            f"{name!r} is the name of a bundled domain, and both would share a workspace. Choose a name other than "
            f"{', '.join(used)}"
        )


def _template_files() -> Iterator[tuple[Path, str]]:
    for path in sorted(TEMPLATE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(TEMPLATE), path.read_text("utf-8")
