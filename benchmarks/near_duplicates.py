"""Precision and recall of the near-duplicates that `slmtune prepare` drops, on pairs whose similarity is known exactly.

    python benchmarks/near_duplicates.py [--pairs 3000] [--seed 0] [--threshold 0.8]

A small grammar invents texts of 40 to 220 words. Each has one copy with edits of one kind (typos, swapped words, inserted
sentences, lost ends, all of them, or only case and punctuation), from light to strong. A pair is a near-duplicate if the
exact Jaccard index of its word 5-grams is at least the threshold. Hard negatives look alike and are none: short texts
that differ in one figure, and labelled texts with another label.

All pairs are prepared in one run with the default steps. A pair counts as dropped if one of its rows was dropped as a
duplicate, near-duplicate or repeat of a held-out row. Prints the table by kind, the pairs that lie within 0.05 of the
threshold, where 128 permutations must err (3.5 points of standard error at 0.8), and precision and recall. Exits with 1
where precision is below 0.96 or recall below 0.94.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NGRAM = 5
MIN_PRECISION, MIN_RECALL = 0.96, 0.94
NEAR = 0.05  # distance from the threshold
REPEATS = frozenset({"duplicate", "near_duplicate", "near_test", "near_validation", "conflicting_label"})
LABELS = ("complaint", "praise", "question")

WHO = "the warden|a baker|our neighbour|the ferryman|her aunt|the surveyor|a young clerk|the orchard keeper|his tailor"
WHAT = "a lantern|the ledger|some plums|a wooden crate|the copper kettle|a folded map|two letters|the harness|a violin"
DOES = (
    "carried|painted|mended|borrowed|weighed|lent|hid|counted|polished|sold|fetched|wrapped|labelled|admired|returned"
)
WHERE = "behind the mill|at the harbour|near the chapel|under the stairs|by the canal|in the attic|across the square"
WHEN = "before dawn|late in autumn|during the fair|after supper|on market day|while it rained|last spring|at low tide"
SYLLABLES = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]


@dataclass(frozen=True)
class Pair:
    """Two rows, the kind of difference between them, and whether one of them repeats the other."""

    kind: str
    rows: tuple[dict[str, str], dict[str, str]]
    similarity: float
    repeats: bool


# --- texts and edits --------------------------------------------------------------------------------------------------


def sentence(draw: random.Random) -> str:
    """A sentence of the grammar, with an invented name."""
    name = "".join(draw.choices(SYLLABLES, k=3)).capitalize()
    who, what, does, where, when = (draw.choice(part.split("|")) for part in (WHO, WHAT, DOES, WHERE, WHEN))
    form = draw.randrange(3)
    if form == 0:
        return f"{who} of {name} {does} {what} {where} {when}.".capitalize()
    if form == 1:
        return f"{when}, {name} and {who} {does} {what} {where}.".capitalize()
    return f"{where} {who} {does} {what} for {name}, {when}.".capitalize()


def text(draw: random.Random) -> list[str]:
    """The words of 4 to 18 sentences."""
    return " ".join(sentence(draw) for _ in range(draw.randint(4, 18))).split()


def misspell(words: list[str], share: float, draw: random.Random) -> list[str]:
    """Exchange two letters of some words."""
    for place in draw.sample(range(len(words)), round(share * len(words) / NGRAM)):
        word = words[place]
        at = draw.randrange(max(len(word) - 1, 1))
        words[place] = word[:at] + word[at + 1 : at + 2] + word[at : at + 1] + word[at + 2 :]
    return words


def swap(words: list[str], share: float, draw: random.Random) -> list[str]:
    """Exchange neighbouring words."""
    for place in draw.sample(range(len(words) - 1), round(share * len(words) / NGRAM)):
        words[place], words[place + 1] = words[place + 1], words[place]
    return words


def insert(words: list[str], share: float, draw: random.Random) -> list[str]:
    """Insert sentences."""
    goal = len(words) * (1 + share)
    while len(words) < goal:
        at = draw.randrange(len(words) + 1)
        words[at:at] = sentence(draw).split()
    return words


def truncate(words: list[str], share: float, _: random.Random) -> list[str]:
    """Lose the end."""
    return words[: max(round(len(words) * (1 - share)), NGRAM)]


def restyle(words: list[str], share: float, draw: random.Random) -> list[str]:
    """Change case and punctuation only."""
    words = [word.strip(".,") + draw.choice(("", "", ",", "!")) for word in words]
    return [word.upper() if draw.random() < share else word for word in words]


def mix(words: list[str], share: float, draw: random.Random) -> list[str]:
    """A little of each edit."""
    for edit in (truncate, insert, swap, misspell, restyle):
        words = edit(words, share / 4, draw)
    return words


EDITS: dict[str, Callable[[list[str], float, random.Random], list[str]]] = {
    "typos": misspell,
    "swapped words": swap,
    "inserted sentences": insert,
    "lost ends": truncate,
    "case and punctuation": restyle,
    "all edits": mix,
}
STRENGTHS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # about the share of 5-grams that change


# --- pairs ------------------------------------------------------------------------------------------------------------


def jaccard(one: str, other: str) -> float:
    """The exact Jaccard index of the word 5-grams of two texts."""
    left, right = (grams(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(left & right) / len(left | right)


def grams(words: Sequence[str]) -> set[tuple[str, ...]]:
    """The word 5-grams; fewer words are one gram."""
    return {tuple(words[at : at + NGRAM]) for at in range(max(len(words) - NGRAM + 1, 1))}


def make_pairs(count: int, threshold: float, draw: random.Random) -> Iterator[Pair]:
    """Pairs of every kind in turn; a sixth of them are hard negatives."""
    for number in range(count):
        if number % 6 == 5:
            yield (other_figure, other_label)[number // 6 % 2](draw)
            continue
        kind = draw.choice(list(EDITS))
        base = text(draw)
        copy = EDITS[kind](list(base), draw.choice(STRENGTHS), draw)
        one, other = " ".join(base), " ".join(copy)
        similarity = jaccard(one, other)
        yield Pair(kind, ({"text": one}, {"text": other}), similarity, similarity >= threshold)


def other_figure(draw: random.Random) -> Pair:
    """A short text, filled with two figures."""
    words = " ".join(sentence(draw) for _ in range(4)).split()[:55]
    low, high = draw.sample(range(2, 900), 2)
    place = draw.randrange(len(words))
    one, other = (" ".join([*words[:place], str(figure), *words[place:]]) for figure in (low, high))
    return Pair("another figure", ({"text": one}, {"text": other}), jaccard(one, other), False)


def other_label(draw: random.Random) -> Pair:
    """A labelled text and nearly the same text with another label."""
    base = text(draw)
    one, other = " ".join(base), " ".join(misspell(list(base), 0.1, draw))
    low, high = draw.sample(LABELS, 2)
    rows = {"text": one, "label": low}, {"text": other + " Indeed.", "label": high}
    return Pair("another label", rows, jaccard(one, other), False)


# --- the run ----------------------------------------------------------------------------------------------------------


def dropped(gold: Sequence[Pair], threshold: float, folder: Path) -> list[bool]:
    """Prepare all rows, and return for each pair whether one of its rows was dropped as a repeat."""
    files: dict[str, list[str]] = {"texts": [], "labels": []}
    places = []
    for pair in gold:
        name = "labels" if "label" in pair.rows[0] else "texts"
        places.append({f"{name}/{name}.jsonl:{len(files[name]) + number}" for number in (1, 2)})
        files[name] += [json.dumps(row) + "\n" for row in pair.rows]
    command = [sys.executable, "-m", "finetune", "prepare", "--output-dir", str(folder / "corpus"), "--offline", "-q"]
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(lines))
        command += ["--source", str(folder / f"{name}.jsonl")]
    subprocess.run([*command, "--near-duplicates", str(threshold)], check=True, stdout=subprocess.DEVNULL)
    repeats = set()
    for line in (folder / "corpus" / "drops.jsonl").read_text().splitlines():
        drop = json.loads(line)
        if drop["reason"] not in REPEATS:
            raise SystemExit(f"{drop['id']} was dropped as {drop['reason']}, which is no repeat")
        repeats.add(drop["id"])
    return [bool(rows & repeats) for rows in places]


def line(kind: str, gold: Sequence[tuple[Pair, bool]]) -> str:
    """A row of the table."""
    repeats, drops = sum(pair.repeats for pair, _ in gold), sum(drop for _, drop in gold)
    both = sum(pair.repeats and drop for pair, drop in gold)
    precision, recall = (f"{both / whole:.4f}" if whole else "-" for whole in (drops, repeats))
    return f"{kind:<24} {len(gold):>6,} {repeats:>8,} {drops:>8,} {both:>6,} {precision:>9} {recall:>7}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threshold", type=float, default=0.8)
    arguments = parser.parse_args()
    threshold = arguments.threshold
    pairs = list(make_pairs(arguments.pairs, threshold, random.Random(arguments.seed)))
    with tempfile.TemporaryDirectory() as folder:
        gold = list(zip(pairs, dropped(pairs, threshold, Path(folder)), strict=True))
    print(f"{len(gold):,} pairs, seed {arguments.seed}, threshold {threshold}")
    print(f"{'kind':<24} {'pairs':>6} {'repeats':>8} {'dropped':>8} {'both':>6} {'precision':>9} {'recall':>7}")
    for kind in dict.fromkeys(pair.kind for pair in pairs):
        print(line(kind, [one for one in gold if one[0].kind == kind]))
    print(line(f"within {NEAR} of it", [one for one in gold if abs(one[0].similarity - threshold) < NEAR]))
    print(line("all", gold))
    both = sum(pair.repeats and drop for pair, drop in gold)
    precision = both / sum(drop for _, drop in gold)
    recall = both / sum(pair.repeats for pair in pairs)
    return int(precision < MIN_PRECISION or recall < MIN_RECALL)


if __name__ == "__main__":
    sys.exit(main())
