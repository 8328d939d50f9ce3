"""Renders plans for several GPUs and machines as text: the commands that start a training, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from finetune.cli.console import paragraph, table
from finetune.machine import format_bytes

if TYPE_CHECKING:
    from finetune.plan.cluster.capacity import Capacity, Offer
    from finetune.plan.cluster.launch import Launch

FITS = {True: "yes", False: "no", None: "–"}


def render_launch(launch: Launch) -> str:
    """The commands as a shell script: comments, and a command per machine."""
    needed = f"about {format_bytes(launch.peak_bytes)} of {format_bytes(launch.free_bytes)} on each GPU"
    lines = [f"# {launch.reason[0].upper()}{launch.reason[1:]} ({needed})."]
    if launch.files:
        first, second = launch.files
        lines += [
            "# TRL trains it, on the same corpus. These settings have not been run on GPUs by the authors of slmtune.",
            f"# Written: {first} and {second}.",
        ]
    lines += _commands(launch.commands)
    if launch.alternative:
        lines += ["", "# Or with DeepSpeed (pip install deepspeed):", *_commands(launch.alternative)]
    return "\n".join(lines)


def _commands(commands: Mapping[str, str]) -> list[str]:
    return [line for host, command in commands.items() for line in (f"# on {host}", command)]


def render_capacity(capacity: Capacity) -> str:
    """A row per device, and what the figures rest on."""
    rows = [_row(offer) for offer in capacity.offers]
    columns = ["one of", "fits", "tokens/s", "hours", "US dollars", "basis"]
    note = (
        f"{capacity.model}, {capacity.tokens:,} tokens in all. An estimate assumes {capacity.utilisation:.0%} of the "
        "operations that the data sheet promises: expect half to twice its hours, and more of models below 1,000 M parameters "
        "on large GPUs. N devices take at least an Nth of the hours, for the same cost or more. Sources: --json."
    )
    return f"{table(columns, rows)}\n\n{paragraph(note)}"


def _row(offer: Offer) -> list[str]:
    usd = "–"
    if offer.usd is not None:
        low, high = (f"{each:,.2f}" for each in offer.usd)
        usd = low if low == high else f"{low}–{high}"
    return [
        offer.device,
        FITS[offer.fits],
        f"{offer.tokens_per_second:,.0f}",
        f"{offer.hours:,.2f}",
        usd,
        offer.basis,
    ]
