"""One process per folder: a lock that is released when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finetune.artifacts import make_folder
from finetune.errors import OutputInUseError

log = logging.getLogger(__name__)

LOCK = "lock"  # contains the process id, for the error message of a second run


@contextmanager
def lock_folder(folder: Path, out: Path) -> Iterator[None]:
    """Lock `folder`, creating it if needed; it is removed at the end if it contains nothing but the lock.

    Raises:
        OutputInUseError: another process is writing to `out`.
        InputError: the folder cannot be created.
    """
    handle = _acquire(folder, out)
    try:
        yield
    finally:
        if {path.name for path in folder.glob("*")} <= {LOCK}:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _acquire(folder: Path, out: Path) -> int:
    while True:
        make_folder(folder)
        folder.chmod(0o700)
        handle = -1
        with suppress(FileNotFoundError):  # the last holder has just removed the folder: try again
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            _lock(handle, out)
            if os.fstat(handle).st_ino == (folder / LOCK).stat().st_ino:
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
                return handle
        if handle >= 0:
            os.close(handle)


def _lock(handle: int, out: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        process = os.pread(handle, 20, 0).decode("ascii", "replace")
        os.close(handle)
        raise OutputInUseError(out, process) from None
    except OSError as error:
        log.warning(
            "%s does not support locks (%s): make sure that no second run writes there.", out.parent, error.strerror
        )
