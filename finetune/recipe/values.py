"""Values of recipes as a person writes them: shares in per cent, lists of names, and NAME=VALUE pairs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field


def _read_share(value: object) -> object:
    """Read 5% as 0.05; anything else is left to the field's own validation."""
    if isinstance(value, str) and value.strip().endswith("%"):
        with suppress(ValueError):
            return float(value.strip()[:-1]) / 100
    return value


Share = Annotated[float, BeforeValidator(_read_share)]


def _read_names(value: object) -> object:
    """Read names separated by commas as a tuple."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value) if isinstance(value, list) else value


def _read_pairs(value: object) -> object:
    """Read NAME=N, several times, as a mapping."""
    if not isinstance(value, tuple | list):
        return value
    pairs = [str(pair).rpartition("=") for pair in value]
    if not all(name and separator for name, separator, _ in pairs):
        raise ValueError("each must be of the form NAME=N, such as q_proj=32")
    return {name: number for name, _, number in pairs}


def _read_shares(value: object) -> object:
    """Read NAME=SHARE,NAME=SHARE …, once or several times, as a mapping."""
    if not isinstance(value, str | tuple | list):
        return value
    texts = [value] if isinstance(value, str) else [str(text) for text in value]
    pairs = [pair.strip().rpartition("=") for text in texts for pair in text.split(",") if pair.strip()]
    if not all(name and separator for name, separator, _ in pairs):
        raise ValueError("each must be of the form NAME=SHARE, such as finance=0.7,general=0.3")
    return {name: share for name, _, share in pairs}


Tracker = Literal["none", "wandb", "tensorboard", "trackio", "mlflow"]  # of experiments
Names = Annotated[tuple[str, ...], BeforeValidator(_read_names)]
Pattern = Annotated[Mapping[str, Annotated[int, Field(gt=0, le=1024)]], BeforeValidator(_read_pairs)]
Mix = Annotated[Mapping[str, Annotated[Share, Field(ge=0)]], BeforeValidator(_read_shares)]
