"""How far a merged model is from its adapter: the logits of both for the same rows, and what each predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from finetune.merge.request import Distance
from finetune.models.chat_template import render, render_prompt
from finetune.models.encoder_inputs import encode
from finetune.models.load import LoadedModel, greedy_settings
from finetune.records import Example
from finetune.scoring.encoders import prediction_logits

GREEDY_ROWS, GREEDY_TOKENS = 16, 32  # how many prompts are also continued, and by how many tokens


@dataclass(frozen=True)
class Trace:
    """The output of a model for one row: logits at every token of the answer, and a greedy continuation.

    Of an encoder: the logits of each of its decisions, and what it decides.
    """

    logits: torch.Tensor  # (answer tokens, vocabulary) or (decisions, outcomes), in the compute precision of the model
    greedy: torch.Tensor  # (generated tokens,) or (decisions,), empty if the prompt was not continued


class RunningDistance:
    """The distance between two models, summed up row by row, so that no logits are kept."""

    def __init__(self) -> None:
        self._largest = torch.zeros(())
        self._gaps = self._divergences = 0.0
        self._logits = self._tokens = self._prompts = self._same = self._generated = 0

    def add(self, reference: Trace, other: Trace) -> None:
        """Add a row, with KL(reference ‖ other)."""
        left, right = reference.logits.float(), other.logits.float()
        gap = (left - right).abs()
        ours, theirs = left.log_softmax(-1), right.log_softmax(-1)
        divergence = (ours.exp() * (ours - theirs)).sum(-1)
        self._largest = torch.maximum(self._largest, gap.max())  # unlike max(), it passes NaN on
        self._gaps += float(gap.sum(dtype=torch.float64))
        self._divergences += float(divergence.sum(dtype=torch.float64))
        self._logits += gap.numel()
        self._tokens += len(divergence)
        self._prompts += 1
        lengths = len(reference.greedy), len(other.greedy)
        self._same += int((reference.greedy[: min(lengths)] == other.greedy[: min(lengths)]).sum())
        self._generated += max(lengths)

    def distance(self) -> Distance:
        """The figures over the rows so far."""
        return Distance(
            max_abs_logit_diff=float(self._largest),
            mean_abs_logit_diff=self._gaps / self._logits,
            mean_kl=self._divergences / self._tokens,
            greedy_agreement=self._same / max(self._generated, 1),
            prompts=self._prompts,
        )


def store_traces(loaded: LoadedModel, rows: Sequence[Example], max_length: int, folder: Path) -> None:
    """Trace a model into files, one per row: together they can be gigabytes."""
    folder.mkdir()
    for number, trace in enumerate(_trace(loaded, rows, max_length)):
        save_file(vars(trace), _trace_file(folder, number))


def measure_distances(
    loaded: LoadedModel, rows: Sequence[Example], max_length: int, references: Sequence[Path]
) -> list[Distance]:
    """The distances of a model from those whose traces of the same rows are in the folders `references`."""
    comparisons = [RunningDistance() for _ in references]
    for number, trace in enumerate(_trace(loaded, rows, max_length)):
        for comparison, folder in zip(comparisons, references, strict=True):
            comparison.add(Trace(**load_file(_trace_file(folder, number))), trace)
    return [comparison.distance() for comparison in comparisons]


def _trace_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.safetensors"


def _trace(loaded: LoadedModel, rows: Sequence[Example], max_length: int) -> Iterator[Trace]:
    return _trace_prompts(loaded, rows) if loaded.head is None else _trace_encoder(loaded, rows, max_length)


@torch.inference_mode()
def _trace_prompts(loaded: LoadedModel, prompts: Sequence[Example]) -> Iterator[Trace]:
    """Trace a causal language model on one prompt after the other; the first few are continued."""
    settings = greedy_settings(loaded.tokenizer, GREEDY_TOKENS)
    for number, example in enumerate(prompts):
        row = render(loaded.tokenizer, example)
        ids = torch.tensor([row.ids], device=loaded.model.device)
        at_answer = torch.tensor(row.supervised[1:], device=ids.device)
        logits = loaded.model(input_ids=ids).logits[0, :-1][at_answer].cpu()
        greedy = torch.empty(0, dtype=torch.long)
        if number < GREEDY_ROWS:
            prompt = torch.tensor([render_prompt(loaded.tokenizer, example.prompt, example.tools)], device=ids.device)
            output = loaded.model.generate(
                input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=settings
            )
            greedy = output[0, prompt.shape[1] :].cpu()
        yield Trace(logits, greedy)


def _trace_encoder(loaded: LoadedModel, rows: Sequence[Example], max_length: int) -> Iterator[Trace]:
    """Trace an encoder on one row after the other; an encoder reads at most `max_length` tokens, as in training."""
    for row in rows:
        logits = prediction_logits(loaded, encode(loaded.tokenizer, row, max_length)).cpu()
        yield Trace(logits, logits.argmax(-1))
