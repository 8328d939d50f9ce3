"""Derives questions and answers from a document by rules on its headings: without a model, and on this machine.

a heading that is a question           the heading                              the section
a definition list                      What is TERM?                            the definition
a heading with a known word            What are the symptoms of TITLE?          the section
another heading below a title          What does TITLE say about HEADING?       the section
a table of questions and answers       the first cell                           the second cell
text before the first heading          What is TITLE about?                     that text
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from finetune.prepare.documents.chunk import blocks_of, with_paths
from finetune.records import Document

MIN_ANSWER = 40  # characters of a section: shorter ones are captions and "See also"
MIN_DEFINITION = 15  # characters: a meaning in three words is one
MAX_TERM = 100  # characters: a longer term is a sentence
MAX_BARS = 20  # in a row of two columns, with those that are text
MAX_REFERENCE = 300  # characters: a longer line is a paragraph that names a source
MAX_LINKS = 0.5  # of the lines: a section that is mostly links, addresses or references answers nothing

# The question -> the headings that it answers; {} stands for what the document is about, * for the heading.
QUESTIONS = {
    "What is {} at a glance?": "at a glance",
    "What is {}?": "overview, definition, description, about, introduction",
    "What is {}, in short?": "summary",
    "What is the * of {}?": "background, dosage, history, purpose, scope",
    "What are the * of {}?": "symptoms, signs and symptoms, signs, complications, side effects, ingredients, benefits, "
    "advantages, disadvantages, risks, terms, features",
    "What causes {}?": "causes, cause, etiology",
    "What are the * for {}?": "risk factors, treatments, fees, charges, requirements, deadlines",
    "Who is at risk for {}?": "who is at risk",
    "How is {} diagnosed?": "diagnosis, exams and tests",
    "Which tests are there for {}?": "tests",
    "How is {} treated?": "treatment, therapy",
    "How is {} managed?": "management",
    "What is the outlook for {}?": "outlook, prognosis, outlook (prognosis)",
    "How can {} be prevented?": "prevention",
    "How is {} inherited?": "inheritance",
    "How common is {}?": "epidemiology, frequency, prevalence",
    "How is {} transmitted?": "transmission",
    "What are the warnings about {}?": "warnings",
    "What is {} used for?": "uses, indications",
    "When should {} not be used?": "contraindications",
    "What does {} cost?": "costs, pricing",
    "Who is eligible for {}?": "eligibility",
    "How does {} work?": "how it works",
    "How does one apply for {}?": "how to apply, application",
    "What does {} cover?": "coverage",
    "What does {} not cover?": "exclusions",
    "What are examples of {}?": "examples",
    "Which types of {} are there?": "types",
    "How is {} installed?": "installation",
    "How is {} used?": "usage",
    "What can be done about problems with {}?": "troubleshooting",
}
KNOWN = {name: question.replace("*", name) for question, names in QUESTIONS.items() for name in names.split(", ")}
# Sections that tell of the document or point elsewhere.
SKIPPED = re.compile(
    r"(?:references?|sources?|bibliography|literature|further (?:reading|information)|see also|external links|links|notes"
    r"|footnotes|endnotes|contents|table of contents|index|contact(?: us)?|disclaimer|copyright|licen[cs]e|authors?"
    r"|acknowledge?ments?|revision history|change ?log|related (?:topics|pages|links|articles)|resources"
    r"|for more information|learn more|share this.*|print this.*)\W*",
    re.I,
)
NUMBER = re.compile(
    r"^(?:(?:chapter|section|part|article|appendix)\s+(?:\d+(?:\.\d+)*|[IVXLC]+|[A-Z])[.):]?|\(?\d+(?:\.\d+)*[.):]?"
    r"|\(?[a-z]{1,4}\)|(?-i:[IVXLC]+|[A-Z])\.(?=\s+(?-i:[A-Z])))\s+(?=\S)",
    re.I,
)
LINK = re.compile(r"https?://|www\.|\bdoi:|@\w+\.|\b(?:tel|phone|fax)\b", re.I)
CITATION = re.compile(r"^\s*(?:[-*]|\[?\d+[\].)])?\s*\S.*\b(?:19|20)\d\d\b.*\b(?:\d+\s*\(\d+\)|pp?\.\s*\d|\d+[-–]\d+)")
SPEAKER = re.compile(r"^(?:Q|Question|A|Answer)\s*[:.]\s*", re.I)
DEFINITION = re.compile(r"^([^\n|]{2,100})\n: (\S.*)$", re.S)
TABLE_ROW = re.compile(r"^\|\s*(.+?)\s*(?<!\\)\|\s*(.+?)\s*(?<!\\)\|\s*$")
DOUBLED = re.compile(r"\?{2,}$")
NAMED_TITLES = re.compile(r"^(?:facts about|about|what is|what are|all about|guide to|introduction to)\s+", re.I)


def instruct(document: Document) -> Iterator[tuple[str, str]]:
    """Yield questions and their answers, in the order of the document and without repetition.

    A heading that is not a question needs the title of the document (or the headings above) to say what it is about;
    without these it gives no question.
    """
    seen: set[tuple[str, str]] = set()
    for path, section in with_paths(document):
        for question, answer in _pairs(document, path, section.heading, section.text):
            pair = (_as_question(question), answer.strip())
            if pair not in seen:
                seen.add(pair)
                yield pair


def _pairs(document: Document, path: tuple[str, ...], heading: str | None, text: str) -> Iterator[tuple[str, str]]:
    if any(SKIPPED.fullmatch(_bare(part)) for part in path):
        return
    listed: list[tuple[str, str]] = []
    rest = []
    for block in blocks_of(text):
        pairs = list(_definitions(block)) or list(_rows(block))
        listed += pairs
        if not pairs:
            rest.append(block)
    answer = "\n\n".join(rest)
    question = _question(document, path, heading)
    if question and _is_answer(answer):
        yield question, SPEAKER.sub("", answer)
    yield from listed


def _question(document: Document, path: tuple[str, ...], heading: str | None) -> str | None:
    """The question that a section answers; None if its headings do not tell."""
    if heading is None:
        return f"What is {_subject(document.title)}?" if document.title and not document.title.endswith("?") else None
    bare = _bare(heading)
    if bare.endswith("?"):
        return bare
    about = next((part for part in reversed(path[:-1]) if not _known(part)), None)
    if about is None:
        return None
    known = _known(heading)
    if about.endswith("?"):
        return f"{about} In particular: {bare}"
    return (
        known.format(_subject(about)) if known else f"What should I know about {_subject(bare)} in {_subject(about)}?"
    )


def _known(heading: str) -> str | None:
    return KNOWN.get(_bare(heading).casefold().rstrip(":."))


def _bare(heading: str) -> str:
    """A heading without its number and a prefix such as "Q:"."""
    return SPEAKER.sub("", NUMBER.sub("", heading)).strip()


def _subject(text: str | None) -> str:
    """The subject of a title or heading, in the form used in a question."""
    return NAMED_TITLES.sub("", _bare(text or "").rstrip(".:?!"))


def _as_question(text: str) -> str:
    text = DOUBLED.sub("?", " ".join(text.split()))
    letters = [letter for letter in text if letter.isalpha()]
    if letters and all(letter.isupper() for letter in letters) and len(letters) > 8:
        text = text.lower()
    return text[:1].upper() + text[1:]


def _definitions(block: str) -> Iterator[tuple[str, str]]:
    """A term and its meaning, as the readers write definition lists."""
    match = DEFINITION.match(block)
    if match and len(match[1]) <= MAX_TERM and len(match[2]) >= MIN_DEFINITION:
        term = match[1].strip().rstrip(":")
        yield (term if term.endswith("?") else f"What is {term}?"), match[2]


def _rows(block: str) -> Iterator[tuple[str, str]]:
    """The rows of a table of two columns whose first cell is a question."""
    lines = block.split("\n")
    if any(not 3 <= line.count("|") <= MAX_BARS for line in lines):
        return
    rows = [TABLE_ROW.match(line) for line in lines]
    pairs = [(row[1].replace("\\|", "|"), row[2].replace("\\|", "|")) for row in rows if row]
    if len(pairs) != len(rows) or not all("|" not in answer for _, answer in pairs):
        return
    questions = [(question, answer) for question, answer in pairs if question.endswith("?") and _is_answer(answer)]
    if len(questions) * 2 > max(len(pairs) - 2, 1):
        yield from questions


def _is_answer(text: str) -> bool:
    """Whether a section is an answer: long enough, and not mostly links, addresses or references."""
    if len(text) < MIN_ANSWER or text.rstrip().endswith(("?", ":")):
        return False
    lines = [line for line in text.split("\n") if line.strip()]
    pointing = sum(1 for line in lines if len(line) <= MAX_REFERENCE and (LINK.search(line) or CITATION.match(line)))
    return pointing <= MAX_LINKS * len(lines)
