"""Which tokens may follow in an answer made of labels, so that decoding never writes anything else.

The labels are a tree of tokens, and behind every label of several the tree of the labels that may follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from transformers import PreTrainedTokenizerBase

from finetune.models.chat_template import render_answer
from finetune.records import NO_LABEL, SEPARATOR, Example, Message
from finetune.scoring.trie import ROOT, Trie, build_trie

AllowedTokens = Callable[[tuple[int, ...]], list[int]]  # from the tokens of an answer so far to those that may follow


@dataclass(frozen=True)
class State:
    """Where in an answer a reader may be: at a node of the tree of its first or of a later label, after other labels."""

    first: bool
    node: int
    used: frozenset[int]


@dataclass(frozen=True, eq=False)
class LabelAnswers:
    """The answers that consist of one label, or of any number of different ones.

    Args:
        first: the tokens of labels at the beginning of an answer, as the chat template renders them.
        later: those of a separator and a label behind another one; without paths if an answer has one label.
        end: the token that ends the turn.
        alone: the number of the label that no other follows: the answer if there is none.
    """

    first: Trie
    later: Trie
    end: int
    alone: int | None = None

    @cached_property
    def shortest_limit(self) -> int:
        """The number of tokens within which every label fits, the end of the turn included."""
        return 1 + max(map(len, self.first.paths))

    def allow(self, limit: int) -> AllowedTokens:
        """A function from the tokens so far to those that may follow in an answer of at most `limit` tokens.

        After the end of the turn, only that follows.
        """
        longest = max(map(len, self.later.paths), default=0)

        @cache
        def states(tokens: tuple[int, ...]) -> tuple[State, ...]:
            if not tokens:
                return (State(True, ROOT, frozenset()),)
            *before, last = tokens
            steps = (step for state in states(tuple(before)) for step in self._steps(state))
            return tuple(state for token, state in steps if token == last)

        def allowed(tokens: tuple[int, ...]) -> list[int]:
            if self.end in tokens:
                return [self.end]
            room = len(tokens) + longest + 1 <= limit
            now = states(tokens)
            following = {
                token for state in now for token, after in self._steps(state) if room or not _begins(state, after)
            }
            return sorted(following | {self.end for state in now if self._completed(state) is not None})

        return allowed

    def _steps(self, state: State) -> Iterator[tuple[int, State]]:
        """The tokens that may follow in a label or begin another one, with the states after them."""
        for token, node in self._tree(state).children[state.node].items():
            if self._tree(state).below[node] - state.used:
                yield token, State(state.first, node, state.used)
        label = self._completed(state)
        if label is not None and label != self.alone:
            used = state.used | {label}
            for token, node in self.later.children[ROOT].items():
                if self.later.below[node] - used:
                    yield token, State(False, node, used)

    def _completed(self, state: State) -> int | None:
        """The number of the label that ends here."""
        paths = self._tree(state).paths
        below = self._tree(state).below[state.node] - state.used
        return next((number for number in below if paths[number] and paths[number][-1] == state.node), None)

    def _tree(self, state: State) -> Trie:
        return self.first if state.first else self.later


def _begins(before: State, after: State) -> bool:
    """Whether a step begins another label."""
    return after.used != before.used


def label_answers(tokenizer: PreTrainedTokenizerBase, example: Example) -> LabelAnswers:
    """The answers to a row with choices: one of them, or several if the row may have several labels, or none."""
    several = example.labels is not None
    names = [*example.choices, NO_LABEL] if several and NO_LABEL not in example.choices else list(example.choices)
    first = [_render(tokenizer, example, name) for name in names]
    following = range(len(example.choices) if several else 0)
    return LabelAnswers(
        build_trie([tokens[:-1] for tokens in first]),
        build_trie([_continue(tokenizer, example, names, first, number) for number in following]),
        first[0][-1],
        len(example.choices) if len(names) > len(example.choices) else None,
    )


def _render(tokenizer: PreTrainedTokenizerBase, example: Example, text: str) -> list[int]:
    return render_answer(tokenizer, example.prompt, Message("assistant", text), example.tools)


def _continue(
    tokenizer: PreTrainedTokenizerBase, example: Example, names: Sequence[str], first: Sequence[list[int]], number: int
) -> list[int]:
    """The tokens of a separator and a label behind another label."""
    other = 0 if number else len(names) - 1
    both = _render(tokenizer, example, names[other] + SEPARATOR + names[number])[:-1]
    before = first[other][:-1]
    if both[: len(before)] == before:
        return both[len(before) :]
    ids: list[int] = tokenizer(SEPARATOR + names[number], add_special_tokens=False)["input_ids"]
    return ids
