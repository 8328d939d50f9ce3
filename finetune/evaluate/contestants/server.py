"""The answers of a model behind a URL, which gives texts without probabilities."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from finetune.evaluate.answers import Answers, read_texts
from finetune.evaluate.contestants.chat_server import ChatServer, Question
from finetune.evaluate.contestants.contestant import Contestant, RowsCallback
from finetune.evaluate.contestants.rivals import ServerRival
from finetune.evaluate.request import EvalRequest
from finetune.records import NO_LABEL
from finetune.scoring.generation import trim_answer
from finetune.scoring.tasks import EvalTask

LABEL_TOKENS = 64  # the longest name of a class, and a few words around it
EDGES = string.whitespace + string.punctuation + "“”‘’«»„"
THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)  # before the answer of a model that reasons
REFUSAL = re.compile(
    r"(i['’]m sorry|i am sorry|sorry,|i can(not|['’]t)|as an ai|i['’]m unable|i am unable)\b", re.IGNORECASE
)


@contextmanager
def open_server(request: EvalRequest, rival: ServerRival) -> Iterator[list[Contestant]]:
    """A contestant behind a URL; nothing is loaded."""

    def ask(task: EvalTask, on_rows: RowsCallback) -> Answers:
        return ask_server(rival.server, task, max_new_tokens=request.max_new_tokens, on_rows=on_rows)

    yield [Contestant(rival.name, "rival", ask, refuse_server)]


def refuse_server(task: EvalTask) -> str | None:
    """Why a server cannot answer a task: it tells no probabilities of given answers, and rows with tools are not sent."""
    if task.metric == "preference_accuracy":
        return "a server gives no probabilities of answers"
    if any(row.uses_tools for row in task.examples):
        return "its rows have tools, which are not sent to servers"
    if task.metric == "weighted_f1" and not all(row.choices for row in task.examples):
        return "its rows have no choices to choose from"
    return None


def ask_server(server: ChatServer, task: EvalTask, *, max_new_tokens: int, on_rows: RowsCallback) -> Answers:
    """The answers of a server; a label is one of the choices, exactly but for case, blanks and the marks around it."""
    is_label = task.metric == "weighted_f1"
    questions = [Question(row.id, row.prompt) for row in task.examples]
    replies = server.ask(questions, LABEL_TOKENS if is_label else max_new_tokens, on_rows)
    texts = [
        trim_answer(THOUGHTS.sub("", reply.text, 1), row.task)
        for reply, row in zip(replies, task.examples, strict=True)
    ]
    silent = {number for number, text in enumerate(texts) if replies[number].refused or not text}
    if not is_label:
        answers = read_texts(task, texts)
        return Answers(
            texts,
            labels=answers.labels,
            unparsable=(answers.unparsable | _without_label(answers, texts)) - silent,
            abstained=frozenset(silent),
        )
    picks = [match_choice(text, row.choices) for text, row in zip(texts, task.examples, strict=True)]
    silent |= {n for n, text in enumerate(texts) if picks[n] is None and REFUSAL.match(text)}
    missing = {number for number, pick in enumerate(picks) if pick is None}
    return Answers(
        [pick or text for pick, text in zip(picks, texts, strict=True)],
        unparsable=frozenset(missing - silent),
        abstained=frozenset(silent),
    )


def match_choice(text: str, choices: Sequence[str]) -> str | None:
    """The choice that a text consists of; None if it is none of them, or not clear which."""
    for normalize in (str.casefold, _trim):
        fitting = [choice for choice in choices if normalize(choice) == normalize(text)]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _trim(text: str) -> str:
    return " ".join(text.strip(EDGES).casefold().split())


def _without_label(answers: Answers, texts: Sequence[str]) -> frozenset[int]:
    """Of answers that should list labels, those that list none and do not say so."""
    return frozenset(n for n, labels in enumerate(answers.labels) if not labels and _trim(texts[n]) != NO_LABEL)
