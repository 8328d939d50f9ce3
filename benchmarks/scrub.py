"""How much of the marked personal data in a file `finetune.scrub` finds, and which drugs and diseases it takes for some.

    python benchmarks/scrub.py --data generated_large.json [--half development] [--tagger own] [--presidio MODEL]

The file is a JSON list of objects with `full_text`, `template_id` and `spans` (`entity_type`, `start_position`,
`end_position`), as microsoft/presidio-research writes it. Sentences of one template are alike but for the values, so the halves
are divided by template: even numbers are for development, odd ones for the test.

Prints, for each kind, the spans, the recall (a span counts if every letter and digit of it lies in what was found, of whatever
kind), the marks, the precision (a mark counts if it touches a span) and F2 with n; then how many of the names in
drugs_and_diseases.txt are touched, each in three sentences. With --presidio, the same figures for Presidio's analyzer over
a spaCy model, and the ratio of throughputs in this run; Presidio must be installed. On real records, figures are lower.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.scrub import Scrubber, make_rules
from finetune.scrub.figures import CheckedRow, Figures, Mark, measure, touches

# What the file's types are called here; titles of people and jobs are not personal data.
KINDS = {
    "ADDRESS": "ADDRESS",
    "CREDIT_CARD": "CARD",
    "DATE_TIME": "DATE",
    "DOMAIN_NAME": "URL",
    "EMAIL_ADDRESS": "EMAIL",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "LOCATION": "LOCATION",
    "ORGANIZATION": "ORGANISATION",
    "PERSON": "NAME",
    "PHONE_NUMBER": "PHONE",
    "URL": "URL",
    "US_DRIVER_LICENSE": "LICENCE",
    "US_SSN": "SSN",
}
SENTENCES = ("The patient was treated for {name} in the clinic.", "{name} was ruled out.", "Any history of {name}?")
NAMES = Path(__file__).with_name("drugs_and_diseases.txt")

Finder = Callable[[Sequence[str]], list[tuple[Mark, ...]]]


def read_rows(path: Path, half: str) -> list[tuple[str, tuple[Mark, ...]]]:
    """The texts of one half of the templates, each with its spans."""
    rows = json.loads(path.read_text("utf-8"))
    wanted = {"development": {0}, "test": {1}, "all": {0, 1}}[half]
    return [
        (
            row["full_text"],
            tuple(
                (span["start_position"], span["end_position"], KINDS[span["entity_type"]])
                for span in row["spans"]
                if span["entity_type"] in KINDS
            ),
        )
        for row in rows
        if row["template_id"] % 2 in wanted
    ]


def our_finder(scrubber: Scrubber) -> Finder:
    """Everything that finetune.scrub finds."""

    def find(texts: Sequence[str]) -> list[tuple[Mark, ...]]:
        return [tuple((each.start, each.end, each.entity) for each in spans) for spans in scrubber.find_all(texts)]

    return find


def presidio_finder(model: str) -> Finder:
    """Everything that Presidio finds as it comes, over a spaCy model."""
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    models = [{"lang_code": "en", "model_name": model}]
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": models}).create_engine()
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])

    def find(texts: Sequence[str]) -> list[tuple[Mark, ...]]:
        found = (analyzer.analyze(text=text, language="en") for text in texts)
        return [
            tuple((each.start, each.end, KINDS.get(each.entity_type, each.entity_type)) for each in one)
            for one in found
        ]

    return find


def f2(figures: Figures) -> float | None:
    """The harmonic mean of recall and precision in which recall counts four times as much."""
    recall, precision = figures.recall, figures.precision
    if recall is None or precision is None:
        return None
    return 5 * recall * precision / (4 * precision + recall) if recall + precision else 0.0


def print_figures(rows: Sequence[CheckedRow], sure: Sequence[CheckedRow], kinds: Iterable[str]) -> None:
    """A line per kind, and one for all of them: the recall of `rows`, the precision of `sure`, which have fewer marks."""
    recalls, precisions = measure(rows), measure(sure)
    print(f"{'kind':<14}{'spans':>7}{'recall':>8}{'marks':>7}{'precision':>11}{'F2':>7}")
    for kind in (*sorted(kinds), "all"):
        if kind in recalls and kind in precisions:
            one, other = recalls[kind], precisions[kind]
            each = replace(one, marks=other.marks, right=other.right, precision=other.precision)
            shares = [f"{value:.3f}" if value is not None else "-" for value in (each.recall, each.precision, f2(each))]
            print(f"{kind:<14}{each.spans:>7}{shares[0]:>8}{each.marks:>7}{shares[1]:>11}{shares[2]:>7}")


def taken_names(find: Finder) -> tuple[list[str], int]:
    """The names of drugs and diseases that are touched in any sentence, and the number of all."""
    names = [line for line in NAMES.read_text("utf-8").splitlines() if line]
    texts = [(name, sentence.format(name=name)) for name in names for sentence in SENTENCES]
    found = find([text for _, text in texts])
    taken = {
        name
        for (name, text), marks in zip(texts, found, strict=True)
        if any(start < text.index(name) + len(name) and text.index(name) < end for start, end, _ in marks)
    }
    return sorted(taken), len(names)


def run(name: str, find: Finder, rows: Sequence[tuple[str, tuple[Mark, ...]]], kinds: set[str]) -> float:
    """Print the figures of one tool; its texts per second."""
    texts = [text for text, _ in rows]
    find(texts[:50])
    started = time.perf_counter()
    found = find(texts)
    rate = len(texts) / (time.perf_counter() - started)
    print(f"\n{name}: {len(texts)} texts")
    spans = [tuple(mark for mark in right if mark[2] in kinds) for _, right in rows]
    # What touches a span of a kind that is not asked for is no mistake.
    others = [tuple(mark for mark in right if mark[2] not in kinds) for _, right in rows]
    known = [
        tuple(mark for mark in marks if mark[2] in kinds and not any(touches(mark, span) for span in other))
        for marks, other in zip(found, others, strict=True)
    ]
    rows_found, rows_known = (
        [CheckedRow(*each) for each in zip(texts, marks, spans, strict=True)] for marks in (found, known)
    )
    print_figures(rows_found, rows_known, kinds)
    taken, total = taken_names(find)
    print(f"drugs and diseases taken for personal data: {len(taken)} of {total} ({len(taken) / total:.1%})")
    if taken:
        print("  " + ", ".join(taken[:20]) + (" …" if len(taken) > 20 else ""))
    return rate


def main() -> None:
    """Score the recognisers, with a tagger if there is one, and Presidio if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=["development", "test", "all"], default="development")
    parser.add_argument("--tagger", help="own, or a spaCy model; without one, names and places are left out")
    parser.add_argument("--presidio", metavar="MODEL", help="compare with Presidio over this spaCy model")
    options = parser.parse_args()
    scrubber = Scrubber(make_rules(None, policy=None, find="all", otherwise="all", tagger=options.tagger))
    rows = read_rows(options.data, options.half)
    kinds = set(KINDS.values()) & set(scrubber.kinds)
    ours = run("slmtune", our_finder(scrubber), rows, kinds)
    if options.presidio:
        theirs = run("Presidio", presidio_finder(options.presidio), rows, kinds)
        print(f"\nthroughput, slmtune / Presidio: {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
