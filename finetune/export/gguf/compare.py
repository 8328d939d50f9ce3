"""Compares a GGUF file, run by llama.cpp, with models of transformers on the same held-out rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from finetune.errors import CheckFailedError
from finetune.merge.distance import GREEDY_ROWS, GREEDY_TOKENS, RunningDistance, Trace
from finetune.merge.request import Distance
from finetune.models.chat_template import end_of_turn_ids, render, render_prompt
from finetune.models.llama_cpp import GgufModel, generate_greedily
from finetune.records import Example


@dataclass(frozen=True)
class Comparison:
    """The distances from each reference, and the speed of greedy generation, its prompts included."""

    distances: tuple[Distance, ...]
    tokens_per_second: float


def compare_file(
    file: Path, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example], references: Sequence[Path]
) -> Comparison:
    """Run a GGUF file on rows whose traces by models of transformers are in the folders `references`.

    Raises:
        CheckFailedError: with the tokenizer and the chat template in the file, a row has other tokens.
    """
    rendered = [render(tokenizer, row) for row in rows]
    sums = [RunningDistance() for _ in references]
    ends, tokens, seconds = end_of_turn_ids(tokenizer), 0, 0.0
    with GgufModel(file) as model:
        if (others := sum(render(model.tokenizer, row) != one for row, one in zip(rows, rendered, strict=True))) > 0:
            raise CheckFailedError(
                f"llama.cpp reads {others} of {len(rows)} conversations as other tokens than slmtune does. Nothing was "
                "written. The tokenizer of this model cannot be exported to GGUF"
            )
        model.reserve(max(len(row.ids) for row in rendered) + GREEDY_TOKENS, 1)
        for number, (row, one) in enumerate(zip(rows, rendered, strict=True)):
            logits = _answer_logits(model, one.ids, one.supervised)
            greedy: list[int] = []
            if number < GREEDY_ROWS:
                started = time.monotonic()
                greedy = _continue(model, render_prompt(tokenizer, row.prompt, row.tools), ends)
                tokens, seconds = tokens + len(greedy), seconds + time.monotonic() - started
            for total, folder in zip(sums, references, strict=True):
                reference = Trace(**load_file(folder / f"{number}.safetensors"))
                total.add(reference, Trace(logits, torch.tensor(greedy, dtype=torch.long)))
    return Comparison(tuple(total.distance() for total in sums), tokens / max(seconds, 1e-9))


def _answer_logits(model: GgufModel, ids: Sequence[int], supervised: Sequence[bool]) -> torch.Tensor:
    """The logits before each token of an answer, (answer tokens, vocabulary)."""
    start = supervised.index(True)
    first = model.read(ids[:start])
    nodes = [(token, depth, (0,)) for depth, token in enumerate(ids[start:-1], 1)]
    logits = [first, *model.read_tree(nodes, 1)]
    wanted = [one for one, is_answer in zip(logits, supervised[start:], strict=True) if is_answer]
    return torch.from_numpy(np.stack(wanted)).float()


def _continue(model: GgufModel, prompt: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The greedy continuation of a prompt, with the token that ends it, as transformers gives it."""
    tokens = generate_greedily(model, prompt, (), GREEDY_TOKENS, None)
    last = next((number for number, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: last + 1]
