"""Answers that follow a JSON schema, a regular expression or a list of choices: which tokens may come next."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from llguidance import LLMatcher, LLParserLimits
from llguidance.hf import from_tokenizer
from llguidance.torch import allocate_token_bitmask, fill_next_token_bitmask
from transformers import PreTrainedTokenizerBase

from finetune.errors import InputError

MAX_SCHEMA, MAX_REGEX = 16 << 10, 4 << 10  # characters
MAX_DEPTH = 16  # of nesting, in a schema
MAX_REASON = 200  # characters of a reason that an error repeats
# Work, not time: the same request is refused on every machine. At about 50,000 units of fuel a millisecond for a grammar and
# 14,000 for a step (llguidance's documentation), neither takes more than some 20 ms; verbose errors would quote the schema.
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000, step_lexer_fuel=200_000, max_grammar_size=50_000, verbose_errors=False
)
# Whitespace is fixed: models that may add any amount of it sometimes never stop.
SPACING: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
BITS = torch.arange(32, dtype=torch.int32)


def json_grammar(schema: dict[str, Any]) -> str:
    """The grammar of the JSON texts that a schema allows.

    Raises:
        InputError: the schema is too large or nested too deeply.
    """
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA:
        raise InputError(f"The schema has {len(text)} characters, which is more than {MAX_SCHEMA}")
    if _depth(schema) > MAX_DEPTH:
        raise InputError(f"The schema is nested more than {MAX_DEPTH} levels deep")
    return str(LLMatcher.grammar_from_json_schema(text, overrides=SPACING))


def regex_grammar(pattern: str) -> str:
    """The grammar of the texts that a regular expression matches as a whole."""
    return str(LLMatcher.grammar_from_regex(pattern))


def choice_grammar(choices: Sequence[str]) -> str:
    """The grammar of a list of texts."""
    quoted = (json.dumps(choice, ensure_ascii=False) for choice in choices)
    return str(LLMatcher.grammar_from_lark(f"start: {' | '.join(quoted)}"))


class GrammarConstraint:
    """Follows one answer, token by token; see `finetune.serve.engine.job.Constraint`."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._mask = allocate_token_bitmask(1, vocabulary)
        self._vocabulary = vocabulary

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, so that nothing may follow."""
        return self._matcher.is_stopped()

    def copy(self) -> GrammarConstraint:
        """A constraint for another answer that is as far as this one."""
        return GrammarConstraint(self._matcher.deep_copy(), self._vocabulary)

    def allowed(self) -> torch.Tensor:
        """The tokens that may come next, as a boolean tensor (vocabulary of the tokenizer,).

        Raises:
            InputError: the next step would take too much work.
        """
        fill_next_token_bitmask(self._matcher, self._mask)
        self._check()
        return ((self._mask[0, :, None] >> BITS) & 1).bool().flatten()[: self._vocabulary]

    def accept(self, token: int) -> None:
        """Take note of a generated token. Raises what `allowed` raises."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InputError(
                "The schema or the expression takes too much work while the answer is written. Simplify it"
            )


class Constraints:
    """Compiles grammars for the tokens of a model. Its methods may be called from any thread."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Iterable[int]) -> None:
        self._tokenizer: Any = tokenizer
        self._ends = sorted(ends)
        self._tokens: Any = None  # built when first needed, which takes about a second
        self._building = threading.Lock()

    def compile(self, grammar: str) -> GrammarConstraint:
        """A constraint at its beginning.

        Raises:
            InputError: the grammar has a mistake, asks for something that is not supported, or takes too much work.
        """
        with self._building:
            if self._tokens is None:
                self._tokens = from_tokenizer(self._tokenizer, eos_token=self._ends)
        matcher = LLMatcher(self._tokens, grammar, log_level=0, limits=LIMITS)
        if matcher.is_error():
            reason = " ".join(matcher.get_error().split())[:MAX_REASON]
            raise InputError(f"The schema or the expression cannot be used: {reason}")
        return GrammarConstraint(matcher, self._tokens.vocab_size)


def _depth(value: object) -> int:
    """How many lists and objects are nested in a value; MAX_DEPTH + 1 is as deep as it looks."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        level = [
            item
            for part in level
            if isinstance(part, dict | list)
            for item in (part.values() if isinstance(part, dict) else part)
        ]
        depth += bool(level)
    return depth
