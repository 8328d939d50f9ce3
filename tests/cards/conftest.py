"""The corpus page is tested on corpora that `prepare` wrote."""

from ..prepare.conftest import prepared

__all__ = ["prepared"]
