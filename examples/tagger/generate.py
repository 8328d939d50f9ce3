"""Sentences with marked names, places and addresses, made from templates.txt and the lists beside it.

python examples/tagger/generate.py --rows 20 [--seed 0]     prints rows as JSON lines
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from values import LABELS, Values

TEMPLATES = Path(__file__).with_name("templates.txt")
SLOT = re.compile(r"\{([a-z_]+)\d?\}")
LONGEST = 4  # templates in a row
SHARE_CAPITAL = 0.8  # of rows that begin with what is no name
HELD_OUT = 10  # each tenth template is for validation


@dataclass(frozen=True)
class Row:
    """A text, and its spans: first character, the one after the last, label."""

    text: str
    spans: tuple[tuple[int, int, str], ...]


def read_templates() -> list[str]:
    """The templates, without comments, with real line breaks."""
    lines = TEMPLATES.read_text("utf-8").splitlines()
    return [line.replace("\\n", "\n") for line in lines if line and not line.startswith("#")]


def fill(template: str, values: Values) -> Row:
    """A template with values in its slots."""
    text, spans, at = "", [], 0
    for match in SLOT.finditer(template):
        text += template[at : match.start()]
        slot, at = match[1], match.end()
        value = values.slots[slot]()
        if not match.start() and slot not in LABELS and values.pick.chance(SHARE_CAPITAL):
            value = value[0].upper() + value[1:]
        if slot in LABELS:
            start = len(text) + 4 * (LABELS[slot] == "ORGANISATION" and value.startswith("the "))
            spans.append((start, len(text) + len(value), LABELS[slot]))
        text += value
    return Row(text + template[at:], tuple(spans))


def join(rows: list[Row], gap: str) -> Row:
    """Rows one after the other."""
    text, spans = "", []
    for row in rows:
        text += gap if text else ""
        spans += [(start + len(text), end + len(text), label) for start, end, label in row.spans]
        text += row.text
    return Row(text, tuple(spans))


def distort(row: Row, random: Random) -> Row:
    """The row in small letters or capitals, without some marks, or unchanged; the length stays."""
    kind, text = random.random(), row.text
    if kind < 0.18:
        changed = text.lower()
    elif kind < 0.23:
        changed = text.upper()
    elif kind < 0.30:
        changed = "".join(" " if char in ",;:" and random.random() < 0.5 else char for char in text)
    elif kind < 0.36:  # only what is marked is in small letters
        changed = text
        for start, end, _ in row.spans:
            changed = changed[:start] + changed[start:end].lower() + changed[end:]
    else:
        return row
    return Row(changed, row.spans) if len(changed) == len(text) else row  # ß and İ change their length


def generate(rows: int, seed: int, *, held_out: bool = False) -> Iterator[Row]:
    """Rows of the templates for training, or of those that are held out."""
    random = Random(seed)
    values = Values(random)
    templates = [line for number, line in enumerate(read_templates()) if (number % HELD_OUT == 0) == held_out]
    for _ in range(rows):
        count = random.choice((1, 1, 1, 1, 2, 3, LONGEST))
        parts = [fill(random.choice(templates), values) for _ in range(count)]
        yield distort(join(parts, random.choice((" ", " ", "\n", "\n\n"))), random)


def main() -> None:
    """Print rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for row in generate(options.rows, options.seed):
        print(json.dumps({"text": row.text, "spans": row.spans}, ensure_ascii=False))


if __name__ == "__main__":
    main()
