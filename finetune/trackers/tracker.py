"""The interface between a run and the experiment tracker that logs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

PROJECT = "slmtune"  # the name of the project, unless the user sets another


class Tracker(Protocol):
    """A run at an experiment tracker."""

    id: str  # by which a resumed run continues this one

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log the figures of an optimizer step; those that a resumed run repeats count once."""

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        """Log the final figures."""

    def close(self, *, failed: bool) -> None:
        """End the session; a run that failed can be resumed later."""
