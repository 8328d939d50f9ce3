"""The likelihood of each label as the answer to a row.

Base and adapter go through the same functions, prompts and batches, so any difference is due to the adapter.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import nn

from finetune.models.chat_template import render_answer, render_prompt
from finetune.models.load import LoadedModel
from finetune.models.structure import base_model, find_state
from finetune.records import Example, Message
from finetune.scoring.inputs import RowsCallback, pad_left, render_prompts, sort_batches
from finetune.scoring.label_scores import LabelScores
from finetune.scoring.tree_passes import TreeRow, score_tries
from finetune.scoring.trie import Trie, build_trie

NO_CONTENT = "N/A"  # in place of the last question: of the content-free inputs of Zhao et al., 2021, arXiv 2102.09690
# Largest accepted difference of a label's log-probability between one pass and plain passes: sums in another order differ
# by 1e-5 in 32 bits, and rounding to 16 bits by up to 0.3 in SmolLM2-135M.
EXACT, ROUNDED = 1e-3, 0.5

log = logging.getLogger(__name__)
# Whether one pass gives what plain passes give: by model, and whether the row compared exceeds its sliding window.
_verdicts: WeakKeyDictionary[nn.Module, dict[bool, bool]] = WeakKeyDictionary()


def label_logprobs(
    loaded: LoadedModel, examples: Sequence[Example], *, batch_size: int, on_rows: RowsCallback | None = None
) -> list[list[float]]:
    """Log-probability, in nats, of each of a row's `choices` as the complete answer.

    The probability of an answer is the product over its tokens, including the end-of-turn token, so a label that is a
    prefix of another one is distinct from it.
    """
    rows = score_labels(loaded, examples, batch_size=batch_size, on_rows=on_rows, with_priors=False)
    return [list(row.logprobs) for row in rows]


def score_labels(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    on_rows: RowsCallback | None = None,
    with_priors: bool = True,
) -> list[LabelScores]:
    """The log-probabilities of each row's choices; rows with the same content-free prompt share its computation."""
    tries = _build_tries(loaded, examples)
    rows = [TreeRow(prompt, trie) for prompt, trie in zip(render_prompts(loaded, examples), tries, strict=True)]
    every = [*rows]
    frames: dict[tuple[tuple[Message, ...], str | None, tuple[str, ...]], int] = {}  # their places behind the rows
    owners = []
    for example, trie in zip(examples if with_priors else (), tries, strict=False):
        frame = (empty_question(example.prompt), example.tools, example.choices)
        if frame not in frames:
            frames[frame] = len(every)
            every.append(TreeRow(tuple(render_prompt(loaded.tokenizer, *frame[:2])), trie))
        owners.append(frames[frame])
    nodes: list[list[float]] = [[] for _ in every]
    for batch in _score_rows(loaded, every, batch_size):
        for number, logprobs in batch:
            nodes[number] = logprobs
        if on_rows and (count := sum(number < len(rows) for number, _ in batch)):
            on_rows(count)
    priors = [tuple(every[owner].trie.sum_paths(nodes[owner])) for owner in owners] or [()] * len(rows)
    return [_sum_row(row.trie, nodes[number], priors[number]) for number, row in enumerate(rows)]


def empty_question(prompt: Sequence[Message]) -> tuple[Message, ...]:
    """A prompt whose last turn has no content; its instruction, its examples and earlier turns are kept."""
    return (*prompt[:-1], replace(prompt[-1], content=NO_CONTENT))


def _sum_row(trie: Trie, nodes: Sequence[float], priors: tuple[float, ...]) -> LabelScores:
    lengths = tuple(map(len, trie.paths))
    return LabelScores(tuple(trie.sum_paths(nodes)), lengths, priors, trie.pick_greedily(nodes))


def _build_tries(loaded: LoadedModel, examples: Sequence[Example]) -> list[Trie]:
    """The tree of each row's choices; rows with the same choices share one."""
    tries: dict[tuple[str, ...], Trie] = {}
    for example in examples:
        if example.choices not in tries:
            answers = [
                render_answer(loaded.tokenizer, example.prompt, choice, example.tools) for choice in example.choices
            ]
            tries[example.choices] = build_trie(answers)
    return [tries[example.choices] for example in examples]


def _score_rows(
    loaded: LoadedModel, rows: Sequence[TreeRow], batch_size: int
) -> Iterator[list[tuple[int, list[float]]]]:
    """The log-probabilities of the nodes of each row, in one pass for all of them if the model can."""
    if rows and _takes_trees(loaded, rows):
        yield from score_tries(loaded, rows, batch_size=batch_size)
        return
    rows_per_pass = max(1, batch_size // max((len(row.trie.paths) for row in rows), default=1))
    for batch in sort_batches([len(row) for row in rows], rows_per_pass):
        members = [rows[number] for number in batch]
        answers = [(place, path) for place, row in enumerate(members) for path in range(len(row.trie.paths))]
        yield list(zip(batch, _score_plainly(loaded, members, answers, batch_size), strict=True))


def _takes_trees(loaded: LoadedModel, rows: Sequence[TreeRow]) -> bool:
    """Whether one pass over a tree of answers gives what plain passes give; tried once per model.

    It is tried with the shortest row, and if rows exceed the sliding window, with the longest.
    """
    model = base_model(loaded.model)
    if find_state(model) or not model._supports_attention_backend:
        return False
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    longest = max(rows, key=len)
    beyond = bool(window and len(longest) > window)
    verdicts = _verdicts.setdefault(model, {})
    if beyond not in verdicts:
        difference = _compare(loaded, longest if beyond else min(rows, key=len))
        verdicts[beyond] = difference <= (EXACT if model.dtype in (torch.float32, torch.float64) else ROUNDED)
        if not verdicts[beyond]:
            log.warning(
                "Labels are scored in a pass of their own each, which is slower: in one pass, this model's log-probabilities "
                "differ by %.2g.",
                difference,
            )
    return verdicts[beyond]


def _compare(loaded: LoadedModel, row: TreeRow) -> float:
    """The largest difference of a log-probability between one pass and plain passes, for up to two choices of a row."""
    paths = [0, len(row.trie.paths) - 1]
    (nodes,) = _score_plainly(loaded, [row], [(0, path) for path in paths], len(paths))
    try:
        ((_, own),) = next(iter(score_tries(loaded, [row], batch_size=1)))
    except TypeError:  # the architecture does not pass the layout on to its attention
        return float("inf")
    return max(abs(own[node - 1] - nodes[node - 1]) for path in paths for node in row.trie.paths[path])


def _score_plainly(
    loaded: LoadedModel, rows: Sequence[TreeRow], answers: Sequence[tuple[int, int]], batch_size: int
) -> list[list[float]]:
    """The log-probabilities of the nodes of each row along some answers, each with its prompt and without a cache.

    Args:
        answers: which row, and which path of its tree.
        batch_size: answers per forward pass.
    """
    nodes = [[0.0] * (len(row.trie.tokens) - 1) for row in rows]
    for start in range(0, len(answers), batch_size):
        batch = [(row, rows[row].trie.paths[path]) for row, path in answers[start : start + batch_size]]
        tokens = [[rows[row].trie.tokens[node] for node in path] for row, path in batch]
        ids, mask = pad_left(loaded, [[*rows[row].prompt, *own] for (row, _), own in zip(batch, tokens, strict=True)])
        with torch.inference_mode():
            output = loaded.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=False,
                logits_to_keep=max(map(len, tokens)) + 1,
            )
        for (row, path), own, logits in zip(batch, tokens, output.logits[:, :-1], strict=True):
            picked = (
                logits[-len(own) :].float().log_softmax(-1).gather(-1, torch.tensor(own, device=ids.device)[:, None])
            )
            for node, logprob in zip(path, picked[:, 0].tolist(), strict=True):
                nodes[row][node - 1] = logprob
    return nodes
