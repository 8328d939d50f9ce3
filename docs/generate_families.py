"""Write the guide's table of model families from the parameters of their test; with --check, only compare it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from finetune.plan.shapes import FAMILIES as PLANNED
from tests.train.families import FAMILIES

PAGE = Path(__file__).parent / "guide" / "training.md"
BEGIN, END = "<!-- families: written by make docs -->\n", "\n<!-- end of families -->"


def table() -> Iterator[str]:
    """The rows of the table, each family with what training does for it."""
    yield "| family | for example | batches | memory is planned |"
    yield "|---|---|---|---|"
    for family in FAMILIES:
        planned = "yes" if family.kind in PLANNED else "no"
        yield f"| {family.name} | {family.examples} | {family.batches} | {planned} |"


def main() -> None:
    """Write the table, or only compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit 1 if the table is out of date.")
    check = parser.parse_args().check
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    new = before + BEGIN + "\n" + "\n".join(table()) + "\n" + END + rest.partition(END)[2]
    if not check:
        PAGE.write_text(new, "utf-8")
    elif text != new:
        sys.exit("The families in docs/guide/training.md are out of date. Write them again with: make docs")


if __name__ == "__main__":
    main()
