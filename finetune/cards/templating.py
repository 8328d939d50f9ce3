"""The Jinja environment of cards and pages: strict, with escaping for HTML."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined


def percent(share: float) -> str:
    """A share with one decimal, such as 12.5 %; a share above zero never shows as zero."""
    return "< 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def whole_percent(share: float) -> str:
    """A share without decimals, such as 12 %."""
    return f"{share:.0%}".replace("%", " %")


def p_value(value: float) -> str:
    """A p-value with four decimals; none shows as zero."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def sentence_case(text: str) -> str:
    """The text with a capital first letter; unlike `capitalize`, it leaves the others alone."""
    return text[:1].upper() + text[1:]


def shorten(text: str, length: int) -> str:
    """The text with its middle left out if it is longer: a question may stand at either end of it."""
    if len(text) <= length:
        return text
    tail = length // 3
    return f"{text[: length - tail].rstrip()} […] {text[-tail:].lstrip()}"


ENVIRONMENT = Environment(
    loader=PackageLoader("finetune.cards", "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
)
ENVIRONMENT.filters |= {
    "count": "{:,}".format,
    "p_value": p_value,
    "percent": percent,
    "shorten": shorten,
    "sentence_case": sentence_case,
    "whole_percent": whole_percent,
}


def read_script(name: str) -> str:
    """A script beside the templates, as it lies in a page: its hash in the page's policy is that of exactly this text."""
    return files("finetune.cards").joinpath("templates", name).read_text("utf-8").strip()
