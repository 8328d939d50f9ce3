"""Makes an example of a draft: escaped, filtered and scrubbed, with the texts that later stages compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from finetune.prepare.clean.language import is_foreign
from finetune.prepare.clean.markup import strip_markup
from finetune.prepare.clean.quality import filter_example
from finetune.prepare.clean.special_tokens import escape_control_tokens
from finetune.prepare.clean.text import clean_text
from finetune.prepare.dedup.keys import context_group
from finetune.prepare.drops import Drops
from finetune.prepare.rows.change import Change, change_texts, change_turns, follow_context
from finetune.prepare.rows.draft import Draft
from finetune.prepare.rows.job import Job
from finetune.prepare.rows.part import Part
from finetune.records import Drop, Example, Message, Split
from finetune.scrub import Scrubber


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known about a row before it becomes an example: its id, its group, and the split named by its source.

    `official` rows belong to a published test set and are all kept; `timestamp` is in seconds since 1970, and set if rows
    are split by time.
    """

    name: str
    group: str | None
    split: Split | None
    official: bool = False
    timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An example, its origin, and the texts that later stages compare.

    `compared` is the example in clean text, however little its own was cleaned. `question` and `answer` are its texts
    before scrubbing, without instructions, as in eval sets; `context` is the part of the question that other questions may
    share.
    """

    example: Example
    compared: Example
    origin: Origin
    question: str = ""
    answer: str = ""
    context: str = ""


def make_candidate(job: Job, part: Part, draft: Draft, origin: Origin, drops: Drops) -> Candidate | Drop:
    """Make an example from a draft, or a `Drop` if a filter rejects it."""
    if draft.label == "undesirable" and draft.task == "preference" and "rejected" in part.ignored:
        return Drop(origin.name, "read", "rejected_answer")
    example = _escape_example(_make_example(part, draft, origin), drops)
    compared = example if part.is_clean else _clean_example(example)
    if compared.messages == compared.rejected:
        return Drop(origin.name, "read", "equal_answers")
    reason = None if origin.official else _filter(job, compared)
    if reason is not None:
        return Drop(origin.name, *reason)
    question = answer = ""
    if job.evals is not None and not origin.official:
        prompt = compared.prompt
        question = strip_markup("\n".join(turn.content for turn in prompt if turn.role != "system"))
        answer = strip_markup("\n".join(turn.text for turn in compared.turns[len(prompt) :]))
    same = compared is example
    if job.scrubber is not None:
        counts: Counter[str] = Counter()
        example = _scrub_example(job.scrubber, example, counts)
        compared = example if same else _scrub_example(job.scrubber, compared, Counter())
        if counts and job.scrubber.rules.policy == "drop":
            return Drop(origin.name, "scrub", "personal_data")
        drops.scrubbed.update(counts)
    if draft.context or draft.second:
        example = _with_context(job, draft, example)
        compared = example if same else _with_context(job, draft, compared, clean_text)
    return Candidate(example, compared, origin, question, answer, (draft.context and compared.context) or "")


def _make_example(part: Part, draft: Draft, origin: Origin) -> Example:
    return Example(
        id=origin.name,
        messages=draft.messages,
        task=draft.task,
        label=draft.label,
        choices=draft.choices,
        labels=draft.labels,
        group=origin.group or (context_group(draft.context) if draft.context else None),
        source=part.source.id,
        license=part.source.license,
        tools=draft.tools,
        rejected=draft.rejected,
    )


def _with_context(job: Job, draft: Draft, example: Example, change: Change = str) -> Example:
    """The example with the context of its question, or its second text, changed as the question was."""

    def change_all(text: str) -> str:
        text = change(escape_control_tokens(text))
        return text if job.scrubber is None else job.scrubber.scrub(text, Counter(), example.group or example.id)

    question, changed = (_last_question(turns) for turns in (draft.messages, example.messages))
    return replace(example, context=follow_context(draft.context or draft.second, question, changed, change_all))


def _last_question(turns: Sequence[Message]) -> str:
    return next(turn.content for turn in reversed(turns) if turn.role == "user")


def _clean_example(example: Example) -> Example:
    """The example with the clean text that filters and keys compare."""
    return change_turns(example, clean_text)


def _filter(job: Job, example: Example) -> tuple[str, str] | None:
    """The step and the reason for which an example is dropped, or None."""
    reason = filter_example(example) if job.request.quality else None
    if reason is not None:
        return "quality", reason
    if job.languages and example.task != "translation":
        roles = {"user"} if example.task == "code" else {"user", "assistant"}
        text = "\n".join(turn.content for turn in example.turns if turn.role in roles)
        if is_foreign(text, job.languages):
            return "language", "foreign_language"
    return None


def _escape_example(example: Example, drops: Drops) -> Example:
    escaped = change_texts(example, escape_control_tokens)
    if escaped is not example:
        drops.cleaned["control tokens broken up"] += 1
    return escaped


def _scrub_example(scrubber: Scrubber, example: Example, counts: Counter[str]) -> Example:
    """The example without personal data; a label is never changed. Rows of a group are one document to surrogates."""
    change = partial(scrubber.scrub, counts=counts, document=example.group or example.id)
    return change_texts(example, change, kept=1 if example.task == "classification" else 0)
