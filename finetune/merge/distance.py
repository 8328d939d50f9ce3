"""How far a merged model is from its adapter: the logits of both for the same rows, and what each predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.merge.request import Distance
from finetune.models.chat_template import render
from finetune.models.encoder_inputs import encode
from finetune.models.heads import Head
from finetune.models.load import LoadedModel
from finetune.models.structure import base_model, find_state
from finetune.records import Example
from finetune.scoring.encoders import prediction_logits
from finetune.scoring.generation import generate_tokens
from finetune.scoring.inputs import render_prompts
from finetune.scoring.tasks import reference_labels

GREEDY_TOKENS = 64  # by which each prompt is continued
BATCH_SIZE = 16  # prompts that are continued at once


def _nothing() -> Tensor:
    return torch.empty(0, dtype=torch.long)


@dataclass(frozen=True)
class Trace:
    """The output of a model for one row.

    Args:
        logits: (answer tokens, vocabulary), or of an encoder (decisions, outcomes), in the model's compute precision.
        greedy: the tokens with which the model continues the prompt, or what an encoder decides.
        target: the tokens of the expected answer, or the expected decisions; empty if unknown.
    """

    logits: Tensor
    greedy: Tensor
    target: Tensor = field(default_factory=_nothing)


class RunningDistance:
    """The distance between two models, summed up row by row, so that no logits are kept.

    Of texts, greedy tokens count up to the first different one: behind it, the two models no longer continue the same text.
    """

    def __init__(self, *, is_text: bool = True) -> None:
        self._is_text = is_text
        self._largest = torch.zeros(())
        self._gaps = self._divergences = 0.0
        self._losses = [0.0, 0.0]  # of the reference and of the other
        self._logits = self._tokens = self._prompts = self._same = self._generated = self._targets = 0

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
        if len(reference.target):
            for number, logprobs in enumerate((ours, theirs)):
                chosen = logprobs.gather(-1, reference.target[:, None])
                self._losses[number] -= float(chosen.sum(dtype=torch.float64))
            self._targets += len(reference.target)
        lengths = len(reference.greedy), len(other.greedy)
        equal = (reference.greedy[: min(lengths)] == other.greedy[: min(lengths)]).long()
        self._same += int((equal.cumprod(0) if self._is_text else equal).sum())
        self._generated += max(lengths)

    def distance(self) -> Distance:
        """The figures over the rows so far."""
        reference, other = (loss / self._targets if self._targets else None for loss in self._losses)
        return Distance(
            max_abs_logit_diff=float(self._largest),
            mean_abs_logit_diff=self._gaps / self._logits,
            mean_kl=self._divergences / self._tokens,
            greedy_agreement=self._same / max(self._generated, 1),
            prompts=self._prompts,
            loss=other,
            adapter_loss=reference,
        )


def store_traces(loaded: LoadedModel, rows: Sequence[Example], max_length: int, folder: Path) -> None:
    """Trace a model into files, one per row: together they can be gigabytes."""
    folder.mkdir()
    greedy = _continue_prompts(loaded, rows) if loaded.head is None else []
    for number, row in enumerate(rows):
        trace = _trace(loaded, row, max_length, _nothing())
        _store(replace(trace, greedy=greedy[number]) if greedy else trace, folder, number)


def read_trace(folder: Path, number: int) -> Trace:
    """The stored trace of a row."""
    return Trace(**load_file(_trace_file(folder, number)))


def _continue_prompts(loaded: LoadedModel, rows: Sequence[Example]) -> list[Tensor]:
    """The greedy continuation of each prompt as token ids; none of a prompt behind which the context has no room."""
    prompts = render_prompts(loaded, rows)
    fitting = [number for number, prompt in enumerate(prompts) if len(prompt) + GREEDY_TOKENS <= loaded.context]
    size = 1 if find_state(base_model(loaded.model)) else BATCH_SIZE  # padding would change a state
    answers = generate_tokens(
        loaded, [prompts[number] for number in fitting], batch_size=size, max_new_tokens=GREEDY_TOKENS
    )
    by_row = dict(zip(fitting, answers, strict=True))
    return [torch.tensor(by_row.get(number, []), dtype=torch.long) for number in range(len(rows))]


def measure_distance(
    loaded: LoadedModel, rows: Sequence[Example], max_length: int, reference: Path, keep: Path | None = None
) -> Distance:
    """The distance of a model from the one whose traces of the same rows are in the folder `reference`.

    Args:
        keep: a new folder for the model's own traces, whose greedy tokens are those along the text of the reference.
    """
    running = RunningDistance(is_text=loaded.head is None)
    if keep is not None:
        keep.mkdir()
    for number, row in enumerate(rows):
        expected = read_trace(reference, number)
        trace = _trace(loaded, row, max_length, expected.greedy)
        running.add(expected, trace)
        if keep is not None:
            _store(trace, keep, number)
    return running.distance()


def _store(trace: Trace, folder: Path, number: int) -> None:
    save_file({name: value.contiguous() for name, value in vars(trace).items()}, _trace_file(folder, number))


def _trace_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.safetensors"


def _trace(loaded: LoadedModel, row: Example, max_length: int, greedy: Tensor) -> Trace:
    """Trace one row. A language model says at each place of the text `greedy` which token it would write there."""
    if loaded.head is None:
        return _trace_text(loaded, row, greedy)
    logits = prediction_logits(loaded, encode(loaded.tokenizer, row, max_length)).cpu()
    return Trace(logits, logits.argmax(-1), _expected_decisions(loaded.head, row))


@torch.inference_mode()
def _trace_text(loaded: LoadedModel, example: Example, greedy: Tensor) -> Trace:
    row = render(loaded.tokenizer, example)
    ids = torch.tensor(row.ids)
    at_answer = torch.tensor(row.supervised[1:])
    logits = _run(loaded, ids)[:-1][at_answer]
    if len(greedy):
        (prompt,) = render_prompts(loaded, [example])
        greedy = _run(loaded, torch.cat([torch.tensor(prompt), greedy]))[len(prompt) - 1 : -1].argmax(-1)
    return Trace(logits, greedy, ids[1:][at_answer])


def _run(loaded: LoadedModel, ids: Tensor) -> Tensor:
    """The logits at each of the tokens."""
    logits: Tensor = loaded.model(input_ids=ids[None].to(loaded.model.device)).logits[0].cpu()
    return logits


def _expected_decisions(head: Head, row: Example) -> Tensor:
    """What a head for labels is to decide about a row; empty if the row does not say."""
    labels = reference_labels(row)
    known = row.label is not None or row.labels is not None
    if head.kind == "extraction" or not known or not set(labels) <= set(head.labels):
        return _nothing()
    if head.kind == "multi-label":
        return torch.tensor([int(label in labels) for label in head.labels])
    return torch.tensor([head.labels.index(label) for label in labels[:1]])
