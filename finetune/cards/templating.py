"""The Jinja environment of cards and pages: strict, and escaping what goes into HTML."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def percent(share: float) -> str:
    """A share with one digit, as 12.5 %; one that is not zero never looks like it."""
    return "< 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def whole_percent(share: float) -> str:
    """A share without digits, as 12 %."""
    return f"{share:.0%}".replace("%", " %")


ENVIRONMENT = Environment(
    loader=PackageLoader("finetune.cards", "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
)
ENVIRONMENT.filters |= {"count": "{:,}".format, "percent": percent, "whole_percent": whole_percent}
