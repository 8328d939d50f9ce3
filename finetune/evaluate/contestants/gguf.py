"""The answers of a model in a GGUF file: the same prompts, decoding and scores of labels as for a model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from finetune.evaluate.answers import Answers, pick_answers, pick_labels, read_texts
from finetune.evaluate.contestants.causal import count_tokens, refuse_model
from finetune.evaluate.contestants.contestant import Contestant, RowsCallback
from finetune.evaluate.contestants.rivals import GgufRival
from finetune.evaluate.request import EvalRequest
from finetune.models.chat_template import (
    Rendering,
    end_of_turn_ids,
    render_answer,
    render_conversations,
    render_prompt,
)
from finetune.models.llama_cpp import SEQUENCES, GgufModel, Logits, generate_greedily
from finetune.records import Example
from finetune.scoring.generation import trim_answer
from finetune.scoring.label_decoding import label_answers
from finetune.scoring.label_scores import LabelScores
from finetune.scoring.labels import empty_question
from finetune.scoring.tasks import EvalTask
from finetune.scoring.trie import ROOT, Trie, build_trie


@contextmanager
def open_gguf(request: EvalRequest, rival: GgufRival, tasks: Sequence[EvalTask]) -> Iterator[list[Contestant]]:
    """A model in a GGUF file, with memory for the longest row of the tasks."""
    limit = request.max_new_tokens
    with GgufModel(rival.path) as model:

        def refuse(task: EvalTask) -> str | None:
            if task.metric == "weighted_f1" and max(len(row.choices) for row in task.examples) > SEQUENCES:
                return f"its rows have more than {SEQUENCES} choices"
            return refuse_model(model.tokenizer, task, model.context, limit)

        fitting = [task for task in tasks if refuse(task) is None]
        tokens = max(
            (_count_with_choices(model, task, row, limit) for task in fitting for row in task.examples), default=1
        )
        sequences = max((len(row.choices) for task in fitting for row in task.examples), default=1)
        model.reserve(tokens, min(max(sequences, 1), SEQUENCES))
        yield [Contestant(rival.name, "rival", lambda task, on_rows: _ask(model, task, limit, on_rows), refuse)]


def _count_with_choices(model: GgufModel, task: EvalTask, row: Example, limit: int) -> int:
    """Tokens of a row and of all its choices, which are in memory at the same time."""
    if task.metric != "weighted_f1":
        return count_tokens(model.tokenizer, task, row, limit)
    return len(render_prompt(model.tokenizer, row.prompt, row.tools)) + len(_trie_of(model, row).tokens)


def _ask(model: GgufModel, task: EvalTask, limit: int, on_rows: RowsCallback) -> Answers:
    if task.metric == "weighted_f1":
        return pick_labels(task, score_choices(model, task.examples, on_rows), tuned=False)
    if task.metric == "preference_accuracy":
        pairs = []
        for row in task.examples:
            chosen, rejected = (
                sum_answer(model, rendering) for rendering in render_conversations(model.tokenizer, row)
            )
            pairs.append((chosen, rejected))
            on_rows(1)
        return pick_answers(task, pairs)
    ends = set(end_of_turn_ids(model.tokenizer))
    texts = []
    for row in task.examples:
        prompt = render_prompt(model.tokenizer, row.prompt, row.tools)
        grammar = label_answers(model.tokenizer, row) if row.choices else None
        room = limit if grammar is None else max(limit, grammar.shortest_limit)
        allow = None if grammar is None else grammar.allow(room)
        ids = generate_greedily(model, prompt, ends | ({grammar.end} if grammar else set()), room, allow)
        texts.append(trim_answer(str(model.tokenizer.decode(ids, skip_special_tokens=True)), row.task))
        on_rows(1)
    return read_texts(task, texts)


def score_choices(model: GgufModel, rows: Sequence[Example], on_rows: RowsCallback) -> list[LabelScores]:
    """The log-probabilities of each row's choices, with those after a question without content."""
    tries: dict[tuple[str, ...], Trie] = {}
    priors: dict[tuple[tuple[int, ...], Trie], tuple[float, ...]] = {}
    scores = []
    for row in rows:
        trie = tries[row.choices] = tries.get(row.choices) or _trie_of(model, row)
        frame = (tuple(render_prompt(model.tokenizer, empty_question(row.prompt), row.tools)), trie)
        if frame not in priors:
            priors[frame] = tuple(trie.sum_paths(_score_nodes(model, *frame)))
        nodes = _score_nodes(model, render_prompt(model.tokenizer, row.prompt, row.tools), trie)
        lengths = tuple(map(len, trie.paths))
        scores.append(LabelScores(tuple(trie.sum_paths(nodes)), lengths, priors[frame], trie.pick_greedily(nodes)))
        on_rows(1)
    return scores


def _trie_of(model: GgufModel, row: Example) -> Trie:
    return build_trie([render_answer(model.tokenizer, row.prompt, choice, row.tools) for choice in row.choices])


def sum_answer(model: GgufModel, rendering: Rendering) -> float:
    """The log-probability of the supervised tokens of a conversation."""
    start = rendering.supervised.index(True, 1)
    nodes = _score_nodes(model, rendering.ids[:start], build_trie([rendering.ids[start:]]))
    return sum(logprob for logprob, counts in zip(nodes, rendering.supervised[start:], strict=True) if counts)


def _score_nodes(model: GgufModel, prompt: Sequence[int], trie: Trie) -> list[float]:
    """The log-probability of each node but the root after what is above it, in nats."""
    logprobs = {ROOT: _log_softmax(model.read(prompt))}
    nodes = [(trie.tokens[node], trie.depths[node], trie.below[node]) for node in trie.inner]
    if nodes:
        logits = model.read_tree(nodes, len(trie.paths))
        logprobs |= {node: _log_softmax(one) for node, one in zip(trie.inner, logits, strict=True)}
    return [float(logprobs[parent][token]) for parent, token in zip(trie.parents[1:], trie.tokens[1:], strict=True)]


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max()
    result: Logits = shifted - np.log(np.exp(shifted).sum())
    return result
