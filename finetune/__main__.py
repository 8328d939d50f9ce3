"""Run the command line as `python -m finetune`."""

from finetune.cli.commands import main

main()
