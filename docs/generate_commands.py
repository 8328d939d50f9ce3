"""Write docs/commands.md from the Click commands; with --check, only say whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from finetune.cli import cli

TARGET = Path(__file__).with_name("commands.md")
WIDTH = 110
HEADER = """# Command reference

Generated from the program by `make docs`; do not edit.

"""


def pages(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    """The help of a command and of its subcommands, each as a section."""
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            subcommand = command.get_command(context, child)
            if subcommand is not None and not subcommand.hidden:
                yield from pages(subcommand, child, context)


def main() -> None:
    """Write the page, or only compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 if the file is out of date.")
    check = parser.parse_args().check
    text = HEADER + "\n".join(pages(cli, "slmtune"))
    if not check:
        TARGET.write_text(text, "utf-8")
    elif not TARGET.is_file() or TARGET.read_text("utf-8") != text:
        sys.exit(f"{TARGET.relative_to(Path.cwd())} is out of date. Write it again with: make docs")


if __name__ == "__main__":
    main()
