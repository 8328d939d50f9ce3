"""Removes lines that the documents of one source share: cookie notices, disclaimers, navigation, running heads.

CCNet (Wenzek et al. 2020) removes every paragraph that occurs in another document, C4 (Raffel et al. 2020) every repeated
span of three sentences; both were made for the web at large. In a domain's own folder, short lines repeat because they
mean something ("Fever", "Not available"), so a single line must be long, and short lines are removed only in a run of
several in the same order, like menus. Headings, tables and code are kept, and so is a document that is mostly repeated:
it is a near-duplicate, which is a matter for deduplication. On 5,476 pages of MedQuAD, this removes the standard
paragraphs on clinical trials of one source and nothing else.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from finetune.records import Document, Section

MIN_DOCUMENTS = 3
MIN_SHARE = 0.4  # of the source's documents: meaningful recurring sentences stay below (measured: a third)
MIN_CHARACTERS, MIN_WORDS = 40, 6  # of a long line
RUN = 4  # consecutive short lines that repeat as one
MOST_REPEATED = 0.5  # of a document's characters: above this share, it is not boilerplate
SAMPLED_DOCUMENTS, SAMPLED_LINES = 4000, 1000

LinePosition = tuple[int, int]  # number of the section, number of the line in it


@dataclass
class LineCounter:
    """Counts the documents that contain a line, by hash, in bounded memory.

    For a large source, a sample is kept: the documents with the smallest hashes, so their order does not affect the
    result. Identical documents count once.
    """

    documents: dict[int, array[int]] = field(default_factory=dict)

    def add(self, document: Document) -> None:
        """Count the lines of a document, each once."""
        hashes = array("Q", sorted({hashed for hashed, _ in _units(document)})[:SAMPLED_LINES])
        text = "\0".join([document.title or "", *(section.text for section in document.sections)])
        self.documents[_hash(text)] = hashes
        if len(self.documents) > 2 * SAMPLED_DOCUMENTS:
            self._forget()

    def repeated(self) -> frozenset[int]:
        """The hashes of the lines that are boilerplate, for `drop_repeated`."""
        self._forget()
        seen = Counter(hashed for hashes in self.documents.values() for hashed in hashes)
        least = max(MIN_DOCUMENTS, MIN_SHARE * len(self.documents))
        return frozenset(hashed for hashed, count in seen.items() if count >= least)

    def _forget(self) -> None:
        if len(self.documents) > SAMPLED_DOCUMENTS:
            kept = heapq.nsmallest(SAMPLED_DOCUMENTS, self.documents)
            self.documents = {key: self.documents[key] for key in kept}


def drop_repeated(document: Document, repeated: frozenset[int]) -> Document:
    """The document without the lines in `repeated`.

    A section with a heading keeps its text if all of it is repeated, because it belongs to the heading; a document with
    mostly repeated characters is returned unchanged.
    """
    if not repeated:
        return document
    gone: defaultdict[int, set[int]] = defaultdict(set)
    for hashed, lines in _units(document):
        if hashed in repeated:
            for position, number in lines:
                gone[position].add(number)
    sections = tuple(
        _without(section, gone[position]) if position in gone else section
        for position, section in enumerate(document.sections)
    )
    before, after = (sum(len(section.text) for section in kept) for kept in (document.sections, sections))
    return document if before - after > MOST_REPEATED * before else replace(document, sections=sections)


def _units(document: Document) -> Iterator[tuple[int, tuple[LinePosition, ...]]]:
    """Candidates for boilerplate, as (hash, lines): a long line, or a run of short ones."""
    run: list[tuple[str, LinePosition]] = []
    for position, section in enumerate(document.sections):
        run.clear()
        for number, text in _prose_lines(section.text):
            if len(text) >= MIN_CHARACTERS and text.count(" ") >= MIN_WORDS - 1:
                run.clear()
                yield _hash(text), ((position, number),)
                continue
            run.append((text, (position, number)))
            if len(run) >= RUN:
                last = run[-RUN:]
                yield _hash("\n".join(text for text, _ in last)), tuple(line for _, line in last)


def _prose_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines other than blank lines, headings, tables and code, with their numbers and normalised white space."""
    code = False
    for number, line in enumerate(text.split("\n")):
        squeezed = " ".join(line.split()).casefold()
        fence = squeezed.startswith("```")
        code ^= fence
        if squeezed and not (code or fence or squeezed.startswith(("#", "|")) or "\t" in line.strip()):
            yield number, squeezed


def _without(section: Section, gone: set[int]) -> Section:
    kept: list[str] = []
    for number, line in enumerate(section.text.split("\n")):
        if number not in gone and (line.strip() or (kept and kept[-1].strip())):
            kept.append(line)
    text = "\n".join(kept).strip("\n")
    return section if section.heading and not text.strip() else replace(section, text=text)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
