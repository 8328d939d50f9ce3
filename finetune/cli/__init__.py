"""The command line: what a person types and sees."""

from finetune.cli.commands import cli
from finetune.cli.entry import main

__all__ = ["cli", "main"]
