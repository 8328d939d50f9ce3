"""Fixtures of `prepare`: the corpus page is tested on corpora that it writes."""

from ..prepare.conftest import prepared

__all__ = ["prepared"]
