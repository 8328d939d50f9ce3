"""The command line: what a person types and sees."""

from finetune.cli.commands import cli, main

__all__ = ["cli", "main"]
