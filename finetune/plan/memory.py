"""A shape, a batch and a recipe → bytes at the peak of training, part by part.

On a CPU the peak is that of resident memory, as `finetune.machine.peak_bytes` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.plan.device import Device
from finetune.plan.shapes import Shape
from finetune.recipe import AdapterRecipe

MIB = 2**20
WORD, HALF = 4, 2  # bytes of a float32 and a bfloat16
NF4 = (
    0.5 + 1 / 64 + WORD / (64 * 256)
)  # bytes per weight: 4 bit, a scale per block of 64, one per 256 scales (QLoRA, 3)
NF4_CPU = 0.5 + WORD / 64  # the scales as plain numbers: models.quantize.unpack_scales
GRADIENT, MOMENTS = WORD, 2 * WORD  # bytes per number of an adapter: float32, and two of AdamW
MOMENTS_8BIT = 2
CHUNK = 256  # positions whose logits train/fast/loss.py has in memory at once: 50 MB at a vocabulary of 49,152
# A process that has imported torch, transformers, peft and trl, loaded a tokenizer and made a trainer, without weights:
# torch 2.13, transformers 5.23, trl 1.16 on Linux, x86-64; fitted to benchmarks/plan_accuracy.py with SmolLM2-135M.
PROCESS = 830 * MIB
# A CUDA context with the kernels of torch and cuBLAS's workspace, which the driver counts and torch does not.
CONTEXT = 600 * MIB
# glibc's allocator reuses freed blocks for tensors of other sizes, and what is left between these is too small for the
# next ones: resident memory beyond the sum of what autograd keeps, fitted likewise.
FRAGMENTED = 0.45


@dataclass(frozen=True)
class Batch:
    """The largest forward pass: all tokens of its rows, its longest row, and how many tokens carry loss."""

    tokens: int
    longest: int
    supervised: int
    repeated: int = 0  # tokens of a shared prefix, once per row: each row's keys and values begin with it


@dataclass(frozen=True)
class RowSizes:
    """Lengths of a corpus's rows and their supervised tokens, from which the largest batch is made."""

    lengths: Sequence[int]
    supervised: Sequence[int]
    prefix: int = 0  # tokens that all rows begin with and that a batch computes once

    def largest(self, rows: int, max_length: int) -> Batch:
        """The longest `rows` rows together, each cut to `max_length`: no batch of a shuffle is larger."""
        prefix = min(self.prefix, max_length)
        lengths = sorted((min(length, max_length) for length in self.lengths), reverse=True)[:rows]
        supervised = sorted((min(count, max_length) for count in self.supervised), reverse=True)[:rows]
        tokens = sum(lengths) - prefix * (len(lengths) - 1)
        return Batch(tokens, lengths[0], sum(supervised), prefix * len(lengths) if len(lengths) > 1 else 0)


@dataclass(frozen=True)
class Breakdown:
    """Bytes at the peak; they add up to it."""

    weights: int  # of the base model
    adapter: int  # LoRA matrices and their gradients
    optimizer: int
    activations: int  # what the forward pass keeps for the backward pass
    logits: int  # what the output head takes beyond the backward pass's own needs
    overhead: int  # the process itself: libraries, tokenizer, allocator

    @property
    def total(self) -> int:
        """The peak."""
        return self.weights + self.adapter + self.optimizer + self.activations + self.logits + self.overhead


def full_batch(recipe: AdapterRecipe) -> Batch:
    """Rows of `max_length` each, with loss on every token."""
    tokens = recipe.per_device_train_batch_size * recipe.max_length
    return Batch(tokens, recipe.max_length, tokens)


def compute_bytes(recipe: AdapterRecipe, device: Device) -> int:
    """Bytes of a number in matrix products."""
    return HALF if recipe.precision(has_bfloat16=device.kind == "gpu" and device.has_bfloat16) == "bfloat16" else WORD


def estimate(shape: Shape, recipe: AdapterRecipe, batch: Batch, device: Device) -> Breakdown:
    """The parts of the peak."""
    word = compute_bytes(recipe, device)
    packed = recipe.load_in_4bit
    width = (NF4 if device.kind == "gpu" else NF4_CPU) if packed else word
    weights = int(shape.linear_parameters * width) + shape.other_parameters * word
    adapter = shape.lora_parameters(recipe.lora_r, recipe.target_modules)
    moments = MOMENTS_8BIT if device.kind == "gpu" and recipe.load_in_4bit else MOMENTS
    kept = kept_bytes(shape, recipe, batch, device)
    backward = batch.tokens * shape.passing * word
    if packed:  # the widest layer's weights, unpacked for a product
        backward += max(linear.weights for linear in shape.linears) * word
    # The head runs between forward and backward pass: what counts is the larger of its needs and those of the latter.
    logits = max(0, head_bytes(shape, batch, word) - backward)
    overhead = CONTEXT if device.kind == "gpu" else PROCESS + int(FRAGMENTED * kept)
    return Breakdown(
        weights=weights,
        adapter=adapter * (WORD + GRADIENT),
        optimizer=adapter * moments,
        activations=kept + backward,
        logits=logits,
        overhead=overhead,
    )


def kept_bytes(shape: Shape, recipe: AdapterRecipe, batch: Batch, device: Device) -> int:
    """What autograd holds when the forward pass ends; with checkpointing every block's input, and one block whole."""
    word = compute_bytes(recipe, device)
    is_shared = recipe.shares_prefixes and batch.tokens > batch.longest
    numbers = shape.kept + shape.targeted(recipe.target_modules) * recipe.lora_r
    numbers += shape.repeated if device.kind == "gpu" else 0
    numbers -= 0 if recipe.gradient_checkpointing else shape.recomputed
    block = batch.tokens * numbers * word
    if is_shared:
        block += batch.repeated * shape.keys * word
        block += batch.longest**2 * word  # the mask of the rows' ends over what they share
    if shape.whole_scores:  # before and after the softmax, for each pair of tokens in a row
        block += 2 * shape.heads * batch.tokens * batch.longest * word
    if recipe.gradient_checkpointing:
        return block + shape.layers * batch.tokens * shape.hidden * word
    return block * shape.layers


def head_bytes(shape: Shape, batch: Batch, word: int) -> int:
    """A chunk's logits and their exponentials in float32, besides hidden states and gradients of supervised tokens."""
    positions = min(CHUNK, batch.supervised)
    copies = 3 if shape.softcapped_logits else 2
    logits = positions * shape.vocabulary * (copies * WORD + (word if word != WORD else 0))
    return logits + 2 * batch.supervised * shape.hidden * word
