"""What becomes of personal data: a tag, stars, or a surrogate."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.recipe.scrub import Policy
from finetune.scrub.span import Span


def replace_spans(text: str, spans: Sequence[Span], policy: Policy, document: str) -> str:
    """The text with each span replaced; of a row that is dropped, with tags.

    `document` is what surrogates are consistent within.
    """
    parts, at = [], 0
    for span in spans:
        parts += [text[at : span.start], _replacement(span, text[span.start : span.end], policy, document)]
        at = span.end
    return "".join([*parts, text[at:]])


def _replacement(span: Span, value: str, policy: Policy, document: str) -> str:
    match policy:
        case "mask":
            return "".join("*" if char.isalnum() else char for char in value)
        case "surrogate":
            from finetune.scrub.surrogates import surrogate  # here, because most runs need none

            return surrogate(span.entity, value, document)
    return f"[{span.entity}]"
