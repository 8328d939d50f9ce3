"""The rules that answers to instructions are checked by, such as a first word or a number of lines."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

Check = Literal[
    "equals",
    "equals_case",
    "starts",
    "ends",
    "contains",
    "excludes",
    "words",
    "most_words",
    "lines",
    "bullets",
    "commas",
    "upper",
    "lower",
    "json",
]
AROUND = " \n\"'*.!"  # what may stand around an answer of a few words


class Rule(BaseModel):
    """What an answer must be like: `texts` or `count` are what the check compares it with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: Check
    texts: tuple[str, ...] = ()
    count: int = 0


def follows(rule: Rule, answer: str) -> bool:
    """Whether an answer keeps a rule; case counts only where the rule is about it."""
    text, folded = answer.strip(), answer.strip().casefold()
    texts = [one.casefold() for one in rule.texts]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    match rule.check:
        case "equals":
            return folded.strip(AROUND) in texts
        case "equals_case":
            return text.strip(AROUND) in rule.texts
        case "starts":
            return folded.startswith(tuple(texts))
        case "ends":
            return folded.strip(AROUND).endswith(tuple(one.strip(AROUND) for one in texts))
        case "contains":
            return all(one in folded for one in texts)
        case "excludes":
            return bool(text) and not any(one in folded for one in texts)
        case "words":
            return len(text.split()) == rule.count
        case "most_words":
            return 0 < len(text.split()) <= rule.count
        case "lines":
            return len(lines) == rule.count
        case "bullets":
            return len(lines) == rule.count and all(line.startswith("-") for line in lines)
        case "commas":
            return text.count(",") == rule.count
        case "upper":
            return text.isupper()
        case "lower":
            return text.islower()
        case "json":
            return _json_keys(text) == set(rule.texts)


def _json_keys(text: str) -> set[str] | None:
    """The keys of a JSON object, with or without a fence around it; None if it is none."""
    try:
        value = json.loads(text.removeprefix("```json").strip("`\n "))
    except ValueError:
        return None
    return set(value) if isinstance(value, dict) else None
