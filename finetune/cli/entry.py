"""The entry point: runs the command line and ends the process with the documented exit code."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import click

from finetune.cli.commands import cli
from finetune.cli.console import console
from finetune.errors import EXIT_FAILURE, EXIT_INPUT, SlmtuneError, TerminatedError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

EXIT_INTERRUPTED, EXIT_TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
REDELIVERY = 0.01  # seconds: long enough to leave the finalizer, too short to be noticed


def main() -> NoReturn:
    """Run the command line and end the process with the documented exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _deliver_again
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


def _deliver_again(unraisable: UnraisableHookArgs) -> None:
    """Send a signal once more that arrived during a finalizer: Python drops the exceptions of `__del__`."""
    if issubclass(unraisable.exc_type, (KeyboardInterrupt, TerminatedError)):
        number = signal.SIGTERM if issubclass(unraisable.exc_type, TerminatedError) else signal.SIGINT
        again = threading.Timer(REDELIVERY, signal.pthread_kill, (threading.main_thread().ident, number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(unraisable)
