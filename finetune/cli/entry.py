"""The entry point: runs the command line and ends the process with the documented exit code."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

import click

from finetune.cli.commands import cli
from finetune.cli.console import console
from finetune.errors import EXIT_FAILURE, EXIT_INPUT, SlmtuneError, TerminatedError

EXIT_INTERRUPTED, EXIT_TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def main() -> NoReturn:
    """Run the command line and end the process with the documented exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        cli.main(standalone_mode=False)
        sys.exit(0)
    except SlmtuneError as error:
        console.error(str(error), error)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_INPUT)
    except (KeyboardInterrupt, click.Abort):
        console.error("Interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except TerminatedError:
        console.error("Terminated")
        sys.exit(EXIT_TERMINATED)
    except Exception as error:
        console.unexpected(error)
        sys.exit(EXIT_FAILURE)


def _terminate(number: int, frame: object) -> None:
    raise TerminatedError
