"""Worker processes of commands that tests start."""

from __future__ import annotations

import os
from multiprocessing import get_context

from finetune import workers


def fork_workers() -> None:
    """In the process of a command, as its `before`: fork workers, which saves the time to import the libraries once more."""
    workers.processes = get_context("fork")
    vars(workers)["ensure_running"] = lambda: None
    vars(os)["sched_getaffinity"] = lambda process: {0, 1}
