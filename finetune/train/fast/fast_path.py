"""Compares the fast computation with the untouched model on a few rows before the first step, and drops what differs."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from peft.tuners.lora import Linear
from torch import Tensor, nn

from finetune.train.batches.collate import NumberedRows, PackedBatches, PaddedBatches
from finetune.train.batches.packing import UNSUPERVISED
from finetune.train.batches.rows import TokenRows
from finetune.train.fast import prefix_attention
from finetune.train.fast.lora_linear import FusedLinear, join_siblings
from finetune.train.fast.loss import summed_loss
from finetune.train.fast.obstacles import find_obstacle, has_attention_dropout, has_dropout
from finetune.train.fast.rms_norm import RMSNorm, replace_rms_norms, restore_rms_norms
from finetune.train.fast.swiglu import SwiGLU, replace_swiglu_blocks, restore_swiglu_blocks

log = logging.getLogger(__name__)

LENGTHS = (28, 23, 20)  # tokens of the rows that are compared; the first two have a common beginning
COMMON, ANSWER = 14, 3  # tokens of that beginning, and supervised tokens at the end of each row
BEYOND_WINDOW = 16  # tokens by which one more row exceeds the model's sliding window
# Largest accepted differences of a hidden state, relative to its length, and of the loss, relative to it. In 32 bits, sums
# in another order differ by 1e-6 to 2e-5. In 16 bits they differ by up to 0.03 in SmolLM2-135M and 0.1 in Gemma 3 270M, so
# the difference between rows in a batch and the same rows alone is measured first, with the untouched model.
EXACT, ROUNDED = (1e-4, 1e-4), (2e-2, 2e-2)
TIMES_ROUNDING, LARGEST = 3, 0.3  # accepted differences in 16 bits: a multiple of the measured one, within a limit

NO_ROWS = TokenRows((), np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros(0, np.int64), 0, 0)

Batches = PackedBatches | PaddedBatches


@dataclass(frozen=True)
class Answers:
    """What a model computes for the rows that are compared."""

    hidden: dict[tuple[int, ...], Tensor]  # the final hidden states of each row, (tokens, width), by its tokens
    loss: float  # sum over the supervised tokens of all rows, in nats

    @property
    def finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return math.isfinite(self.loss) and all(bool(row.isfinite().all()) for row in self.hidden.values())

    def difference(self, other: Answers) -> tuple[float, float]:
        """The largest difference of a hidden state, relative to its length, and that of the loss, relative to it."""
        gaps = [
            ((other.hidden[row] - ours).norm(dim=-1) / ours.norm(dim=-1)).max() for row, ours in self.hidden.items()
        ]
        return float(torch.stack(gaps).max()), abs(other.loss - self.loss) / abs(self.loss)


class FastPath:
    """Makes a model fast as far as it still computes the same.

    Args:
        model: the base model, still untouched.
        padded: batches for the plain computation, which every model can train on.
        replace_blocks: whether its feed-forward blocks are replaced, where the replacement computes the same.
    """

    def __init__(self, model: Any, padded: PaddedBatches, *, replace_blocks: bool) -> None:
        self._padded, self._attention = padded, model.config._attn_implementation
        self._obstacle = find_obstacle(model)
        self._packs, self._shares = not has_attention_dropout(model), not has_dropout(model)
        if self._obstacle is None:
            self._rows = NumberedRows(_make_rows(model, padded.rows.training), NO_ROWS)
            self._expected = _ask_untouched(model, replace(padded, rows=self._rows))
            self._limits = _find_limits(model, replace(padded, rows=self._rows), self._expected)
            replace_rms_norms(model)
            if replace_blocks:
                replace_swiglu_blocks(model)

    def choose_batches(self, model: Any, *, packing: bool, share: bool) -> Batches:
        """The fastest kind of batches for which the model computes the same; sets the model up for them.

        Args:
            model: the base model, now with LoRA layers that have no effect yet.
            packing: whether rows may be packed.
            share: whether packed rows may share their common prefixes.
        """
        if self._obstacle is not None:
            restore_lora_layers(model)
            log.warning("Batches are padded and layers are not fused, which is slower: %s.", self._obstacle)
            return self._padded
        if not self._expected.finite:
            log.warning(
                "The base model computes values that are not finite, even before the first step: check its files, or try "
                "--compute-dtype float32."
            )
            return self._padded
        join_siblings(model)
        batches = self._prepare(model, packing=packing, share=share)
        limit, loss_limit = self._limits
        difference, loss = self._compare(model, batches)
        if not difference <= limit:
            batches, loss = self._fall_back(model, batches, difference)
        if not loss <= loss_limit:
            model.set_attn_implementation(self._attention)
            batches = replace(self._padded, own_logits=True)
            log.warning(
                "Training uses the model's own output head, which is slower: with the fast one, the loss differs by %.2g "
                "of its value.",
                loss,
            )
        return batches

    def _fall_back(self, model: Any, batches: Batches, difference: float) -> tuple[Batches, float]:
        """Do without parts of the fast computation until the hidden states are right; also returns the loss's difference."""
        problem = f"this model's hidden states differ by {difference:.2g} of their length"
        for part, fewer in self._drop_parts(model, batches):
            rest, loss = self._compare(model, fewer)
            if rest <= self._limits[0]:
                log.warning("Training does without %s, which is slower: with them, %s.", part, problem)
                return fewer, loss
        log.warning(
            "Batches are padded and layers are not fused, which is slower: %s, and even so by %.2g.", problem, rest
        )
        return self._padded, loss

    def _prepare(self, model: Any, *, packing: bool, share: bool) -> Batches:
        if packing and not self._packs:
            log.warning("Batches are padded, which is slower: the model has attention dropout.")
        if not (packing and self._packs):
            return self._padded
        if share and not self._shares:
            log.info("Rows do not share their prefixes: the model has dropout, and each row needs a mask of its own.")
        prefix_attention.register()
        model.set_attn_implementation(prefix_attention.PACKED)
        return PackedBatches(self._padded.rows, share and self._shares)

    def _drop_parts(self, model: Any, batches: Batches) -> Iterator[tuple[str, Batches]]:
        """Do without one part of the fast computation after the other: its name, and the batches without it."""
        if isinstance(batches, PackedBatches):
            if batches.share:
                yield "shared prefixes", replace(batches, share=False)
            model.set_attn_implementation(self._attention)
            yield "packed rows", self._padded
        if any(isinstance(module, SwiGLU) for module in model.modules()):
            restore_swiglu_blocks(model)
            yield "fused feed-forward blocks", self._padded
        if any(isinstance(module, RMSNorm) for module in model.modules()):
            restore_rms_norms(model)
            yield "fused normalisation", self._padded
        restore_lora_layers(model)
        yield "fused LoRA layers", self._padded

    def _compare(self, model: Any, batches: Batches) -> tuple[float, float]:
        """How the answers differ from those of the untouched model; infinitely if the model cannot use such batches."""
        batch = _collate(model, replace(batches, rows=self._rows))
        with _watching(model) as states:
            try:
                loss = float(summed_loss(model, batch))
            except TypeError:  # the architecture does not pass the layout on to its attention
                return math.inf, 0.0
        return self._expected.difference(Answers(_split(batch, states[-1]), loss))


def _make_rows(model: Any, training: TokenRows) -> TokenRows:
    """Rows of different lengths made of training tokens; one exceeds the sliding window if a training row does."""
    stream = np.resize(training.flat_tokens[:1024], sum(LENGTHS))
    first, second, third = np.split(stream, list(accumulate(LENGTHS))[:-1])
    rows = [first, np.concatenate([first[:COMMON], second[COMMON:]]), third]
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    longest = int(training.lengths.max())
    if window and longest > window:
        rows.append(np.resize(training.flat_tokens[: 2 * window], min(window + BEYOND_WINDOW, longest)))
    ends = np.cumsum([len(row) for row in rows])
    tokens = np.concatenate(rows)
    supervised = np.zeros(len(tokens), np.bool_)
    for end in ends:
        supervised[end - ANSWER : end] = True
    return TokenRows(tuple(map(str, range(len(rows)))), tokens, supervised, ends, 0, 0)


def _find_limits(model: Any, batches: PaddedBatches, expected: Answers) -> tuple[float, float]:
    """The largest differences that rounding explains."""
    if model.dtype in (torch.float32, torch.float64):
        return EXACT
    alone = [_ask_untouched(model, batches, [number]) for number in range(len(batches.rows.training))]
    hidden = {row: states for answers in alone for row, states in answers.hidden.items()}
    measured = expected.difference(Answers(hidden, sum(answers.loss for answers in alone)))
    state, loss = (min(max(least, TIMES_ROUNDING * one), LARGEST) for least, one in zip(ROUNDED, measured, strict=True))
    return state, loss


def _ask_untouched(model: Any, batches: PaddedBatches, numbers: Sequence[int] | None = None) -> Answers:
    """The answers of the model's own forward pass over padded rows; `numbers`: over some of the rows."""
    batch = _collate(model, batches, numbers)
    labels = batch["labels"][:, 1:]
    columns = (labels != UNSUPERVISED).any(0).nonzero().flatten()  # logits of all positions can be gigabytes
    kept = {"logits_to_keep": columns} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    with _watching(model) as states:
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False, **kept
        ).logits
    logits = (logits if kept else logits[:, columns]).float()
    loss = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, columns].flatten(), ignore_index=UNSUPERVISED, reduction="sum"
    )
    return Answers(_split(batch, states[-1]), float(loss))


@contextmanager
def _watching(model: Any) -> Iterator[list[Tensor]]:
    """Collect the final hidden states of forward passes without gradient and dropout."""
    states: list[Tensor] = []
    hook = model.get_decoder().register_forward_hook(lambda module, inputs, output: states.append(output[0].detach()))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield states
    finally:
        hook.remove()
        model.train(was_training)


def _collate(model: nn.Module, batches: Batches, numbers: Sequence[int] | None = None) -> dict[str, Any]:
    device = next(model.parameters()).device
    batch = batches([{"number": number} for number in numbers or range(len(batches.rows.training))])
    moved: dict[str, Any] = send_to_device(batch, device)
    return moved


def _split(batch: dict[str, Any], states: Tensor) -> dict[tuple[int, ...], Tensor]:
    """The hidden states of each row of a batch, by the row's tokens."""
    ids = batch["input_ids"]
    if "layout" in batch:
        rows = [(ids[0, place], states[0, place]) for place in batch["layout"].rows()]
    else:
        real = batch["attention_mask"].bool()
        rows = [(ids[row, mask], states[row, mask]) for row, mask in enumerate(real)]
    return {tuple(tokens.tolist()): hidden.float() for tokens, hidden in rows}


def restore_lora_layers(model: nn.Module) -> None:
    """Let LoRA layers compute as PEFT's own do."""
    for module in model.modules():
        if isinstance(module, FusedLinear):
            layer: Any = module
            layer.__class__ = Linear
