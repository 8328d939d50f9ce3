"""Scores of generated texts: translations, summaries, code and numbers, and all others by words in common.

Every score is from 0 to 1. The libraries for translations and summaries come with the extra `eval`.
"""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.errors import InputError
from finetune.records import Task, TextMetric
from finetune.scoring.metrics import answer_match, token_f1
from finetune.scoring.numbers import match_numbers

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

Scores = dict[str, float]
log = logging.getLogger(__name__)

TASK_METRICS: Mapping[Task, TextMetric] = {
    "translation": "chrf",
    "summarization": "rouge_l",
    "code": "edit_similarity",
}
LIBRARIES: Mapping[str, str] = {"chrf": "sacrebleu", "rouge_l": "rouge_score"}  # metric -> what computes it
# A line break with the indentation after it is one token: in Python it carries meaning.
CODE_TOKEN = re.compile(r"\n[ \t]*|\w+|[^\w\s]")
FENCED = re.compile(r"```[^\n`]*\n(.*?)```", re.S)


def require_libraries(metrics: Iterable[str]) -> list[str]:
    """The libraries that compute the metrics; asked for before a model is loaded.

    Raises:
        InputError: one is not installed; says what to install.
    """
    libraries = sorted({LIBRARIES[metric] for metric in metrics if metric in LIBRARIES})
    for library in libraries:
        if find_spec(library) is None:
            raise InputError(
                f"{library} scores these rows and is not installed. Install it with: pip install 'slmtune[eval]'; or evaluate "
                "other rows with --task"
            )
    return libraries


def available(metrics: Iterable[TextMetric]) -> list[TextMetric]:
    """The metrics whose libraries are installed: figures beside the headline are left out without them."""
    kept = []
    for metric in metrics:
        if metric in LIBRARIES and find_spec(LIBRARIES[metric]) is None:
            log.info("%s is left out: %s is not installed (pip install 'slmtune[eval]').", metric, LIBRARIES[metric])
        else:
            kept.append(metric)
    return kept


def score_text(metric: TextMetric, reference: str, answer: str) -> float:
    """The score of one answer."""
    return _measures(metric)(reference, answer)[metric]


def score_texts(metrics: Sequence[TextMetric], references: Sequence[str], answers: Sequence[str]) -> Scores:
    """All scores of a set of answers by name: the means of those of each answer, and those that only a whole set has."""
    scores: Scores = {}
    for metric in metrics:
        rows = [_measures(metric)(*pair) for pair in zip(references, answers, strict=True)]
        scores |= {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        if metric == "chrf":
            scores["bleu"] = bleu(references, answers)
        if metric == "edit_similarity":
            scores |= _share_of_python(references, answers)
    return scores


def _measures(metric: TextMetric) -> Callable[[str, str], Scores]:
    """The function that gives the scores of one answer beside its reference."""
    if metric == "chrf":
        return lambda reference, answer: {"chrf": chrf(reference, answer)}
    if metric == "rouge_l":
        return rouge
    if metric == "edit_similarity":
        return lambda reference, answer: {
            "edit_similarity": edit_similarity(reference, answer),
            "exact_match": float(read_code(reference) == read_code(answer)),
        }
    if metric == "number_match":
        return lambda reference, answer: {"number_match": match_numbers(reference, answer)}
    if metric == "exact_match":
        return lambda reference, answer: {"exact_match": answer_match(reference, answer)}
    return lambda reference, answer: {"token_f1": token_f1(reference, answer)}


# --- translations and summaries ---------------------------------------------------------------------------------------


def chrf(reference: str, answer: str) -> float:
    """Overlap of character n-grams, with sacrebleu's settings: chrF2 (Popović, 2015, chrF) of one sentence."""
    from sacrebleu.metrics.chrf import CHRF

    return float(CHRF().sentence_score(answer, [reference]).score) / 100


def bleu(references: Sequence[str], answers: Sequence[str]) -> float:
    """BLEU of all sentences together (Papineni et al., 2002), with sacrebleu's settings; there is none of one sentence."""
    from sacrebleu.metrics.bleu import BLEU

    return float(BLEU().corpus_score(list(answers), [list(references)]).score) / 100


def rouge(reference: str, answer: str) -> Scores:
    """Overlap of words, of pairs of words and of the longest common sequence of words (Lin, 2004, ROUGE), each as F1.

    Words are those of any language and are not stemmed, so figures for English differ a little from stemmed ones.
    """
    scores = _rouge_scorer().score(reference, answer)
    names = {"rougeL": "rouge_l", "rouge1": "rouge_1", "rouge2": "rouge_2"}
    return {name: float(scores[key].fmeasure) for key, name in names.items()}


@cache
def _rouge_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL", "rouge1", "rouge2"], tokenizer=_Words())


class _Words:
    """The tokenizer that rouge_score takes; its own keeps only a to z and digits."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, in lower case."""
        return re.findall(r"\w+", text.lower())


# --- code -------------------------------------------------------------------------------------------------------------


def read_code(text: str) -> str:
    """The code in an answer: that of its first fence if it has one; blanks at the ends of lines do not count."""
    fenced = FENCED.search(text)
    lines = (fenced[1] if fenced else text).strip("\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).rstrip()


def edit_similarity(reference: str, answer: str) -> float:
    """The `token_similarity` of the code in two texts."""
    ours, theirs = (CODE_TOKEN.findall(read_code(text)) for text in (reference, answer))
    return token_similarity(ours, theirs)


def token_similarity(one: Sequence[str | int], other: Sequence[str | int]) -> float:
    """1 minus the fewest insertions, deletions and replacements of tokens, divided by the number of tokens of the longer."""
    longest = max(len(one), len(other))
    return 1 - int(_edit_distances(one, other)[-1]) / longest if longest else 1.0


def reachable_similarity(reference: Sequence[str | int], beginning: Sequence[str | int]) -> float:
    """The highest `token_similarity` to a reference that as many tokens, or fewer, can reach behind this beginning."""
    return 1 - int(_edit_distances(beginning, reference).min()) / len(reference)


def parses(code: str) -> bool:
    """Whether a text is Python; it is only parsed, never executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\d"
            ast.parse(read_code(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _share_of_python(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """The share of answers that parse, of those whose reference does; nothing if the code is in another language."""
    python = [answer for reference, answer in zip(references, answers, strict=True) if parses(reference)]
    return {"parses": sum(map(parses, python)) / len(python)} if python else {}


def _edit_distances(one: Sequence[str | int], other: Sequence[str | int]) -> NDArray[np.int64]:
    """Levenshtein distances of `one` to each beginning of `other`: row by row, with insertions as a running minimum."""
    codes = {token: code for code, token in enumerate({*one, *other})}
    theirs = np.array([codes[token] for token in other], np.int64)
    steps = np.arange(len(other) + 1, dtype=np.int64)
    row = steps
    for number, token in enumerate(one, 1):
        replaced = row[:-1] + (theirs != codes[token])
        best = np.concatenate(([number], np.minimum(replaced, row[1:] + 1)))
        row = np.minimum.accumulate(best - steps) + steps
    return row
