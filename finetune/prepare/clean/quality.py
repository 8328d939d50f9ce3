"""Finds rows that are useless or harmful, each with a reason. Tuned to keep good rows rather than to find all bad ones.

For documents (task `text`) these are rules of Gopher (Rae et al. 2021, arXiv 2112.11446, section A.1 and table A1), C4
(Raffel et al. 2020) and FineWeb (Penedo et al. 2024), made for web pages, with what a domain's own text needs changed:

- Gopher wants 50 words; a row here may be one sentence, so `too_short` is below 3.
- Mean word length is 3 to 10 in Gopher; dosages are shorter and chemical names longer, so it is 2.5 to 15 over words of
  letters, and only texts in scripts that put blanks between words are measured.
- Four words in five must have a letter in Gopher; half of them here, and lines of tables are not counted.
- Repeated lines and paragraphs: 30 % of lines or 20 % of their characters in Gopher; lines of tables and short ones (a
  list of "None" or of dates) do not count here, and both shares have to be above 30 %.
- The share of the most frequent 2-, 3-, 4-gram: 20, 18 and 16 % of the characters, as in Gopher, over the same lines.
- Gopher's bullets, stop words and FineWeb's punctuation at line ends are left out: lists and tables are good medicine.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ftfy.badness import badness

from finetune.prepare.clean.mojibake import MOJIBAKE
from finetune.records import Example

MIN_WORDS = 3
WORD_LENGTH = (2.5, 15.0)
MIN_WORDS_WITH_LETTERS = 0.5
MAX_REPEATED_LINES = 0.3
MAX_TOP_GRAM = {2: 0.20, 3: 0.18, 4: 0.16}
# Loops of a model that ran away: hardly any distinct words, or one word of endless repetition.
LOOP_WORDS, LOOP_DISTINCT, LOOP_MEASURED, LOOP_WORD, LOOP_LETTERS = 60, 0.12, 400, 200, 6
FEW_DISTINCT = 0.5  # texts with a larger share of distinct words are not counted by n-grams
MEASURED_WORDS = 2000
ENOUGH_WORDS, ENOUGH_LINES, LONG_LINE, TABLE_WIDTH = 20, 4, 20, 200

LETTER = re.compile(r"[^\W\d_]")
EMOJI = re.compile(r"[\u2600-\u27bf\U0001f300-\U0001faff]")  # a whole comment, to those who label moods
WIDE = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
LOST_INSIDE = re.compile(r"\w\ufffd")  # a lost letter; in front of a word it was an emoji or a bullet
TABLE_LINE = re.compile(r"\||\t|^\W*\w[^\n]*?\d[^\n]*\s[-+($€£]*\d")
PUNCTUATION = re.compile(r"[\s!-/:-@\[-`{-~\u00a1-\u00bf\u2010-\u205e\u3000-\u303f\uff01-\uff0f]*")
# No word that may be an answer: "Na" is sodium, "undefined" what 1/0 is.
STAND_INS = (
    "n/a|n.a|#n/a|#ref!|#name?|#value!|null|tbd|tba|todo|to do|to be done|to be determined|to be added|see above|see below"
    "|as above|same as above|placeholder|insert answer here|your answer here|answer here|no answer|no answer available"
    "|no answer provided|answer not available|not provided|lorem ipsum|[deleted]|[removed]"
)
PLACEHOLDERS = frozenset(STAND_INS.split("|"))
LONGEST_PLACEHOLDER = max(map(len, PLACEHOLDERS)) + 4
ENDS = " .:?!\"'"
LOREM = "lorem ipsum dolor"


def filter_example(example: Example) -> str | None:
    """The reason for which a row should be dropped, or None.

    `too_short`, `symbols`, `word_length`, `repeated_lines`, `repeated_phrases` (documents); `placeholder`, `echo`
    (answers); `no_letters`, `broken_text`, `loop` (all but labels).
    """
    if example.task == "text":
        return _filter_document(example.answer)
    question = next((turn.content for turn in reversed(example.prompt) if turn.role == "user"), "")
    if any(_is_broken(turn.content) for turn in example.turns):
        return "broken_text"
    if example.messages[-1].tool_calls or (example.task == "preference" and example.label == "undesirable"):
        return None  # a call says it all, and a rejected answer may well be bad
    if example.task == "classification":
        return None if LETTER.search(question) or EMOJI.search(question) else "no_letters"
    if example.task == "code":
        return None  # signs, repeated names and words such as null are what code is made of
    return _filter_answer(question, example.answer)


def _filter_answer(question: str, answer: str) -> str | None:
    if _is_placeholder(answer):
        return "placeholder"
    if _is_echo(question, answer):
        return "echo"
    words = answer.split()
    return "loop" if _is_loop(words, len(set(words))) else None


def _filter_document(text: str) -> str | None:
    if not LETTER.search(text):
        return "no_letters"
    if _is_broken(text):
        return "broken_text"
    words = text.split()
    spaced = text.isascii() or not WIDE.search(text)
    if len(words) < MIN_WORDS and (spaced or len(WIDE.findall(text)) < 2 * MIN_WORDS):
        return "too_short"
    if LOREM in text[:200].lower():
        return "placeholder"
    if spaced and len(words) >= ENOUGH_WORDS and not _are_plain(words):
        reason = _filter_words(text)
        if reason is not None:
            return reason
    distinct = len(set(words))
    if _is_loop(words, distinct):
        return "loop"
    if text.count("\n") >= ENOUGH_LINES - 1 and _are_repeated(text.split("\n")):
        return "repeated_lines"
    if spaced and len(words) >= ENOUGH_WORDS and distinct < FEW_DISTINCT * len(words) and _has_top_gram(text):
        return "repeated_phrases"
    return None


def _are_plain(words: Sequence[str]) -> bool:
    """Whether most words consist of letters only and have a usual length, so nothing has to be counted in detail."""
    plain = list(filter(str.isalpha, words))
    return len(plain) * 2 > len(words) and 3 < sum(map(len, plain)) / len(plain) < 10


def _filter_words(text: str) -> str | None:
    words = [word for line in text.split("\n") if not _is_of_table(line) for word in line.split()]
    if len(words) < ENOUGH_WORDS:
        return None
    lengths = [sum(map(str.isalpha, word)) for word in words]
    lettered = [length for length in lengths if length]
    if len(lettered) < MIN_WORDS_WITH_LETTERS * len(words):
        return "symbols"
    shortest, longest = WORD_LENGTH
    return None if shortest <= sum(lettered) / len(lettered) <= longest else "word_length"


def _are_repeated(lines: Sequence[str]) -> bool:
    stripped = [line.strip() for line in lines]
    counted = [line for line in stripped if _is_prose(line)]
    if len(counted) < ENOUGH_LINES:
        return False
    distinct = set(counted)
    if len(distinct) == len(counted):
        return False
    repeats = 1 - len(distinct) / len(counted)
    characters = 1 - sum(map(len, distinct)) / sum(map(len, stripped))
    return repeats > MAX_REPEATED_LINES and characters > MAX_REPEATED_LINES


def _is_prose(line: str) -> bool:
    return len(line) > LONG_LINE and not _is_of_table(line)


def _is_of_table(line: str) -> bool:
    return bool(TABLE_LINE.search(line[:TABLE_WIDTH]))


def _has_top_gram(text: str) -> bool:
    words = [word for line in text.split("\n") if _is_prose(line) for word in line.split()][:MEASURED_WORDS]
    if len(words) < ENOUGH_WORDS:
        return False
    total = sum(map(len, words))
    # A gram's characters are at most those of all occurrences of its words, which are fast to count.
    largest = sorted((count * len(word) for word, count in Counter(words).items()), reverse=True)
    for size, share in MAX_TOP_GRAM.items():
        if sum(largest[:size]) <= share * total:
            continue
        gram, count = Counter(zip(*(words[start:] for start in range(size)), strict=False)).most_common(1)[0]
        letters = "".join(gram)
        if count > 2 and LETTER.search(letters) and count * len(letters) > share * total:
            return True
    return False


def _is_broken(text: str) -> bool:
    """Whether there is more than a little mojibake or replacement characters that could not be repaired."""
    if text.isascii():
        return False
    if "\ufffd" in text:
        lost, inside = text.count("\ufffd"), len(LOST_INSIDE.findall(text))
        if inside * 100 > len(text) or lost * 20 > len(text) or lost > 20:
            return True
    if not MOJIBAKE.search(text):
        return False
    bad = badness(text)
    return bad > 1 and bad * 60 > len(text)


def _is_placeholder(answer: str) -> bool:
    if len(answer) > LONGEST_PLACEHOLDER:
        return LOREM in answer[:200].lower()
    bare = answer.strip().lower()
    return (
        bare.startswith(LOREM)
        or bare in PLACEHOLDERS
        or bare.strip(" .:-–—_!") in PLACEHOLDERS
        or bool(PUNCTUATION.fullmatch(bare))
    )


def _is_echo(question: str, answer: str) -> bool:
    """Whether the answer repeats the question or its last line (a template may precede it)."""
    if answer.rstrip(ENDS)[-8:].lower() not in question[-24:].lower():
        return False  # as nearly always
    bare = _bare(answer)
    return len(bare) > 12 and bare in {_bare(question), _bare(question.split("\n")[-1])}


def _bare(text: str) -> str:
    return " ".join(text.lower().split()).strip(ENDS)


def _is_loop(words: Sequence[str], distinct: int) -> bool:
    if len(words) < LOOP_WORDS:
        return max(map(len, words), default=0) > LOOP_WORD and any(
            len(word) > LOOP_WORD and len(set(word)) < LOOP_LETTERS for word in words
        )
    return distinct < LOOP_DISTINCT * min(len(words), LOOP_MEASURED)
