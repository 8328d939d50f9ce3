"""Write docs/errors.md from the classes of finetune/errors.py; with --check, only say whether it is up to date."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

from finetune.errors import SlmtuneError

TARGET = Path(__file__).with_name("errors.md")
HEADER = """# What went wrong

Generated from the program by `make docs`; do not edit.

An error is one paragraph on standard error: what went wrong, where, and how to fix it. This page lists every kind of error by
the exit code of the command. With `--debug`, a traceback comes first, and its last line names the kind.

An error that starts with `Unexpected` is a bug in slmtune; its exit code is 1. Run the command again with `--debug`, and report
what it shows.
"""
CODES = {
    1: "something failed at run time",
    2: "an argument, file or setting cannot be used",
    3: "a verification failed",
    130: "stopped by a signal",
}


def kinds(base: type[SlmtuneError] = SlmtuneError) -> Iterator[type[SlmtuneError]]:
    """An error class and all its subclasses, in the order of the module."""
    yield base
    for child in base.__subclasses__():
        yield from kinds(child)


def sections() -> Iterator[str]:
    """One section per exit code, with one subsection per class: what went wrong, what to do, and the name of the class."""
    classes = list(kinds())
    for code, meaning in CODES.items():
        yield f"## Exit code {code}{' or 143' if code == 130 else ''}: {meaning}\n"
        for kind in classes:
            if kind.exit_code == code:
                what, _, to_do = (inspect.getdoc(kind) or "").partition("\n\n")
                yield f"### {what.rstrip('.')}\n\n{to_do}\n\n`{kind.__name__}`\n"


def main() -> None:
    """Write the page, or only compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 if the file is out of date.")
    check = parser.parse_args().check
    text = HEADER + "\n" + "\n".join(sections())
    if not check:
        TARGET.write_text(text, "utf-8")
    elif not TARGET.is_file() or TARGET.read_text("utf-8") != text:
        sys.exit("docs/errors.md is out of date. Write it again with: make docs")


if __name__ == "__main__":
    main()
