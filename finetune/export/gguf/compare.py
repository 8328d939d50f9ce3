"""Compares GGUF files, run by llama.cpp, with models of transformers on the same held-out rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from finetune.errors import CheckFailedError
from finetune.export.gguf.server import LlamaServer
from finetune.merge.distance import RunningDistance, Trace, read_trace
from finetune.merge.request import Distance
from finetune.models.chat_template import render, render_prompt
from finetune.models.llama_cpp import GgufModel
from finetune.records import Example

# Of an adapter beside its base model, llama.cpp's server computes one token per request: it is asked for the likeliest tokens
# after the first tokens of an answer, and all others are taken as one.
ANSWER_TOKENS, LIKELIEST = 16, 1000
SPEED_TOKENS = 32  # whose generation is timed


@dataclass(frozen=True)
class Comparison:
    """The distances from each reference, and the speed of llama.cpp, one token at a time."""

    distances: tuple[Distance, ...]  # from the adapter as trained, if there is one, and last from the same weights
    tokens_per_second: float


def require_same_tokens(file: Path, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]) -> None:
    """Require that llama.cpp, with the tokenizer and the chat template in a file, reads rows as the model was trained on them.

    Raises:
        CheckFailedError: a row has other tokens; says of how many.
    """
    with GgufModel(file) as model:
        others = sum(render(model.tokenizer, row) != render(tokenizer, row) for row in rows)
    prompts = [render_prompt(tokenizer, row.prompt) for row in rows if not row.uses_tools]
    with LlamaServer(file, max(map(len, prompts), default=0) + 1) as server:
        given = [server.render_prompt(row.prompt) for row in rows if not row.uses_tools]
    others = max(others, sum(one != other for one, other in zip(given, prompts, strict=True)))
    if others:
        raise CheckFailedError(
            f"llama.cpp reads {others} of {len(rows)} conversations as other tokens than slmtune does, so it would "
            "answer other prompts than the model was trained on. Nothing was written. Serve the model with slmtune serve"
        )


def compare_file(
    file: Path, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example], references: Sequence[Path]
) -> Comparison:
    """Run a GGUF file on rows whose traces by models of transformers are in the folders `references`.

    The greedy tokens of all are those along the text that the first has written.
    """
    sums = [RunningDistance() for _ in references]
    with GgufModel(file) as model:
        model.reserve(_room(tokenizer, rows, references), 1)
        for number, row in enumerate(rows):
            one = render(tokenizer, row)
            start = one.supervised.index(True)
            logits = _logits_after(model, one.ids[:-1], start)[list(one.supervised[start:])]
            prompt = render_prompt(tokenizer, row.prompt, row.tools)
            traces = [read_trace(folder, number) for folder in references]
            greedy = text = traces[0].greedy
            if len(text):
                greedy = _logits_after(model, [*prompt, *text.tolist()[:-1]], len(prompt)).argmax(-1)
            for total, reference in zip(sums, traces, strict=True):
                total.add(reference, Trace(logits, _until_different(greedy, reference.greedy)))
        speed = _measure_speed(model, render_prompt(tokenizer, rows[0].prompt, rows[0].tools))
    return Comparison(tuple(total.distance() for total in sums), speed)


def compare_lora(
    base: Path, lora: Path, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example], references: Sequence[Path]
) -> Comparison:
    """Run the GGUF file of a base model with an adapter beside it; for what is compared, see ANSWER_TOKENS."""
    sums = [RunningDistance() for _ in references]
    started, tokens = time.monotonic(), 0
    with LlamaServer(base, _room(tokenizer, rows, references), lora) as server:
        for number, row in enumerate(rows):
            one = render(tokenizer, row)
            places = [place for place, is_answer in enumerate(one.supervised) if is_answer][:ANSWER_TOKENS]
            likeliest = [server.next_tokens(one.ids[:place], LIKELIEST) for place in places]
            prompt = render_prompt(tokenizer, row.prompt, row.tools)
            traces = [read_trace(folder, number) for folder in references]
            greedy = _follow(server, prompt, [reference.greedy for reference in traces])
            tokens += len(places) + len(greedy)
            for total, reference in zip(sums, traces, strict=True):
                pairs = [_outcomes(*pair) for pair in zip(reference.logits, likeliest, strict=False)]
                ours, theirs = (torch.stack(part) for part in zip(*pairs, strict=True))
                written = _until_different(greedy, reference.greedy[: len(greedy)])
                total.add(Trace(ours, reference.greedy), Trace(theirs, written))
    return Comparison(tuple(total.distance() for total in sums), tokens / (time.monotonic() - started))


def _room(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example], references: Sequence[Path]) -> int:
    """The number of tokens of the longest text that is computed."""
    texts = [len(render(tokenizer, row).ids) for row in rows]
    prompts = [len(render_prompt(tokenizer, row.prompt, row.tools)) for row in rows]
    greedy = [len(read_trace(references[0], number).greedy) for number in range(len(rows))]
    return max(*texts, max(prompts) + max(greedy)) + SPEED_TOKENS + 1


def _logits_after(model: GgufModel, ids: Sequence[int], start: int) -> torch.Tensor:
    """The logits after each of the tokens from number `start` - 1 on, (tokens, vocabulary)."""
    first = model.read(ids[:start])
    nodes = [(token, depth, (0,)) for depth, token in enumerate(ids[start:], 1)]
    return torch.from_numpy(np.stack([first, *model.read_tree(nodes, 1)])).float()


def _until_different(tokens: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The tokens up to the first that differs: behind it, the two no longer continue the same text."""
    same = int((tokens == reference).long().cumprod(0).sum())
    return tokens[: same + 1]


def _measure_speed(model: GgufModel, prompt: Sequence[int]) -> float:
    """Tokens per second that follow a prompt, one at a time."""
    token = int(np.argmax(model.read(prompt)))
    started = time.monotonic()
    for _ in range(SPEED_TOKENS):
        token = int(np.argmax(model.read_more(token)))
    return SPEED_TOKENS / (time.monotonic() - started)


def _outcomes(logits: torch.Tensor, likeliest: dict[int, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """The log-probabilities by a reference and by llama.cpp of the tokens that it finds likeliest, and of all others as one."""
    ours = logits.float().log_softmax(-1)[list(likeliest)]
    theirs = torch.tensor(list(likeliest.values()))
    return _add_rest(ours), _add_rest(theirs)


def _add_rest(logprobs: torch.Tensor) -> torch.Tensor:
    rest = (1 - logprobs.double().exp().sum()).clamp(min=1e-9).log().float()
    return torch.cat([logprobs, rest[None]])


def _follow(server: LlamaServer, prompt: Sequence[int], references: Sequence[torch.Tensor]) -> torch.Tensor:
    """The greedy tokens along the text of the first reference, until each reference has had another one."""
    text, same = references[0].tolist(), list(references)
    tokens: list[int] = []
    while same and len(tokens) < len(text):
        tokens.append(next(iter(server.next_tokens([*prompt, *text[: len(tokens)]], 1))))
        same = [reference for reference in same if reference[len(tokens) - 1] == tokens[-1]]
    return torch.tensor(tokens, dtype=torch.long)
