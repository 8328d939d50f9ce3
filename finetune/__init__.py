"""slmtune: turn a domain's own text into a small language model that is measurably better at it."""

__version__ = "0.1.0"
