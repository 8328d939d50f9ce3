"""A shape, a batch and a recipe → the peak memory of training in bytes, by component.

On a CPU, this is the peak of resident memory, as `finetune.machine.peak_bytes` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finetune.machine import GPU_CONTEXT, LARGEST_KEPT
from finetune.plan.device import Device
from finetune.plan.model_shape import ModelShape
from finetune.recipe import AdapterRecipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIB = 2**20
WORD, HALF = 4, 2  # bytes of a float32 and a bfloat16
STORED = HALF  # bytes per weight in the file of a model, as most are published
NF4 = (
    0.5 + 1 / 64 + WORD / (64 * 256)
)  # bytes per weight: 4 bit, a scale per block of 64, one per 256 scales (QLoRA, 3)
NF4_CPU = 0.5 + WORD / 64  # the scales as plain numbers: models.quantize.unpack_scales
# Bytes per weight while bitsandbytes 0.50 quantises it on a CPU: in float32, scaled, and its code in 32 and in 8 bits.
QUANTIZING = 3 * WORD + 1
GRADIENT, MOMENTS = WORD, 2 * WORD  # bytes per weight of an adapter: float32, and AdamW's two moments
MOMENTS_8BIT = 2
LONG_ROW = 512  # tokens from which train/fast/prefix_attention.py attends without a mask
CHUNK = 256  # positions whose logits train/fast/loss.py has in memory at once
FRUGAL_BYTES = 48 * MIB  # the most that these take in float32 if memory is scarce
# A process that has imported torch, transformers, peft and trl and built a trainer, without weights and tokenizer: torch
# 2.13, transformers 5.23, trl 1.16 on Linux, x86-64; measured before and after weights were loaded.
PROCESS = 600 * MIB
TOKENIZER = 1800  # bytes per token: those of SmolLM2 take 2,580, those of Gemma 3 take 1,440
# glibc's allocator puts small tensors into the gaps that freed larger ones leave, and the next larger ones find none. So
# large tensors of each feed-forward block stay in memory although train/fast/swiglu.py or checkpointing does not keep them,
# and resident memory grows by this share as well. Fitted to three runs of SmolLM2-135M with packed rows, by least squares;
# benchmarks/plan_accuracy.py compares other models and settings.
FRAGMENTED = 0.34


@dataclass(frozen=True)
class Batch:
    """The largest forward pass: all tokens of its rows, its longest row, and how many tokens carry loss."""

    tokens: int
    longest: int
    supervised: int
    repeated: int = 0  # tokens of a shared prefix, counted once per row: every row's keys and values begin with it


@dataclass(frozen=True)
class RowSizes:
    """Lengths and supervised tokens of the conversations of a corpus, which determine the largest batch.

    Each row is one conversation. With `common`, two neighbours are a row: a pair of answers to the same prompt.
    """

    lengths: Sequence[int] | NDArray[np.int64]
    supervised: Sequence[int] | NDArray[np.int64]
    prefix: int = 0  # length of the prefix that all rows share and a batch computes once
    common: Sequence[int] | NDArray[np.int64] = ()  # length of the prefix that the conversations of each pair share

    def largest(self, rows: int, max_length: int, *, padded: bool = False) -> Batch:
        """The `rows` longest rows, each truncated to `max_length`: no shuffled batch is larger.

        Padded to the longest, they are a rectangle, and no row shares its prefix.
        """
        import numpy as np  # here: to plan for a model, no rows are needed

        pairs = len(self.common) > 0
        prefix, count = min(self.prefix, max_length), 2 * rows if pairs else rows
        cut = np.minimum(self.lengths, max_length)
        lengths = _largest(cut, count)
        supervised = sum(_largest(np.minimum(self.supervised, max_length), count))
        if padded:
            return Batch(len(lengths) * lengths[0], lengths[0], supervised)
        if pairs:
            common = np.minimum(self.common, max_length)
            base = int(common.max()) + 1  # of a number whose digits are the tokens of a pair and its common ones
            largest = _largest((cut[::2] + cut[1::2] - common) * base + common, rows)
            shared = sum(number % base for number in largest)
            return Batch(sum(number // base for number in largest), lengths[0], supervised, 2 * shared)
        tokens = sum(lengths) - prefix * (len(lengths) - 1)
        return Batch(tokens, lengths[0], supervised, prefix * len(lengths) if len(lengths) > 1 else 0)


def _largest(sizes: NDArray[np.int64], count: int) -> list[int]:
    """The `count` largest of them, or all if there are fewer, in falling order."""
    import numpy as np

    first = max(len(sizes) - count, 0)
    largest: list[int] = np.sort(np.partition(sizes, first)[first:])[::-1].tolist()
    return largest


@dataclass(frozen=True)
class Breakdown:
    """The components of peak memory, in bytes."""

    weights: int  # of the base model
    adapter: int  # LoRA matrices and their gradients; for preferences, also the matrices that training starts from
    optimizer: int
    activations: int  # what the forward pass keeps for the backward pass
    logits: int  # memory of the output head beyond that of the backward pass
    overhead: int  # the process itself: libraries, tokenizer, allocator
    loading: int  # what reading the weights takes beyond the rest; without quantisation, as far as there is room

    @property
    def needed(self) -> int:
        """The peak of training, which nothing else can make room for."""
        return self.weights + self.adapter + self.optimizer + self.activations + self.logits + self.overhead

    @property
    def peak(self) -> int:
        """The peak, also while weights are read."""
        return self.needed + self.loading


def full_batch(recipe: AdapterRecipe) -> Batch:
    """A batch in which every conversation has `max_length` tokens, all of them supervised; a pair of answers is two."""
    tokens = recipe.per_device_train_batch_size * recipe.max_length * (2 if recipe.method == "dpo" else 1)
    return Batch(tokens, recipe.max_length, tokens)


def compute_bytes(recipe: AdapterRecipe, device: Device) -> int:
    """Bytes per number in matrix products."""
    return HALF if recipe.precision(has_bfloat16=device.kind == "gpu" and device.has_bfloat16) == "bfloat16" else WORD


def weight_bytes(recipe: AdapterRecipe, device: Device) -> float:
    """Bytes per weight of a linear layer of the base model."""
    if recipe.quantization == "none":
        return compute_bytes(recipe, device)
    if recipe.quantization == "int8":
        return 1  # a scale per row of hundreds of weights is nothing beside them
    return NF4 if device.kind == "gpu" else NF4_CPU


def estimate(shape: ModelShape, recipe: AdapterRecipe, batch: Batch, device: Device) -> Breakdown:
    """Estimate the components of peak memory."""
    word = compute_bytes(recipe, device)
    rounded = HALF if recipe.compute_dtype == "mixed" else 0  # beside the packed ones
    loaded = int(shape.linear_parameters * weight_bytes(recipe, device)) + shape.other_parameters * word
    weights = loaded + shape.linear_parameters * rounded
    adapter = shape.adapter_parameters(recipe)
    moments = MOMENTS_8BIT if device.kind == "gpu" and recipe.is_quantized else MOMENTS
    activations = activation_bytes(shape, recipe, batch, device)
    backward = batch.tokens * (2 * shape.inner + 3 * shape.hidden) * word  # gradients in the last block
    if recipe.is_quantized or recipe.use_dora:  # the widest layer's weights, unpacked for a product
        backward += max(linear.weights for linear in shape.linears) * word
    # The head runs between the forward and the backward pass: only the larger of the two counts.
    logits = max(0, head_bytes(shape, batch, word, is_frugal=recipe.gradient_checkpointing) - backward)
    overhead = GPU_CONTEXT
    if device.kind == "cpu":
        overhead = PROCESS + TOKENIZER * shape.tokenizer
        overhead += gap_bytes(shape, recipe, batch, word, activations + backward)
    copies = 1 + (recipe.method == "dpo") + (recipe.init_lora_weights == "pissa")  # of its first weights
    if device.kind == "cpu" and recipe.load_best_model_at_end and recipe.eval_steps != 0:
        copies += 1  # the best weights so far, which a run on a GPU keeps in the memory of the machine
    parts = Breakdown(
        weights=weights,
        adapter=adapter * (copies * WORD + GRADIENT),
        optimizer=adapter * moments,
        activations=activations + backward,
        logits=logits,
        overhead=overhead,
        loading=0,
    )
    if device.kind == "gpu":
        return parts
    reading = PROCESS + TOKENIZER * shape.tokenizer + reading_bytes(shape, recipe, word, loaded)
    if not recipe.is_quantized:
        reading = min(reading, device.free)  # the system drops pages of the file
    return replace(parts, loading=max(0, reading - parts.needed))


def reading_bytes(shape: ModelShape, recipe: AdapterRecipe, word: int, loaded: int) -> int:
    """The peak while weights are read, of which `loaded` bytes stay: pages of the whole file, or one tensor to be quantised.

    The embedding is read first.
    """
    if not recipe.is_quantized:
        return loaded + STORED * shape.parameters
    embedding = shape.other_parameters * word + STORED * shape.vocabulary * shape.hidden
    return max(embedding, loaded + QUANTIZING * max(linear.weights for linear in shape.linears))


def gap_bytes(shape: ModelShape, recipe: AdapterRecipe, batch: Batch, word: int, kept: int) -> int:
    """The gaps between the `kept` bytes of activations, in the memory of a process; tensors above a size leave none."""
    freed = shape.layers * batch.tokens * word
    freed *= shape.passing if recipe.gradient_checkpointing else shape.recomputed
    widest = max(linear.outputs for linear in shape.linears)
    share = min(1.0, LARGEST_KEPT / (batch.tokens * widest * word))
    return int(share * (freed + FRAGMENTED * (kept + freed)))


def activation_bytes(shape: ModelShape, recipe: AdapterRecipe, batch: Batch, device: Device) -> int:
    """What autograd keeps at the end of the forward pass; with checkpointing, each block's input and one whole block."""
    word = compute_bytes(recipe, device)
    padded = is_padded(shape, recipe)
    is_shared = recipe.shares_prefixes and not padded and batch.repeated > 0
    numbers = shape.activations + round(shape.mean_ranks(recipe))
    numbers += shape.repeated if device.kind == "gpu" or padded else 0
    drops = shape.drops_scores and device.kind == "cpu"  # without a kernel for it
    if drops:  # neither what the kernel of attention returns nor its normalisers
        numbers -= shape.queries + shape.heads
    elif padded and not shape.whole_scores:  # the attended values once less; for each row and block, a mask of numbers
        numbers += batch.longest - shape.queries
    numbers -= 0 if recipe.gradient_checkpointing else shape.recomputed
    block = batch.tokens * (numbers * word + shape.in_float32 * (WORD - word))
    block += dora_bytes(shape, recipe, batch, word)
    once = 0
    if is_shared:
        block += batch.repeated * shape.keys * word
        if batch.longest < LONG_ROW:
            once = batch.longest**2 * word  # the mask of the rows' ends over what they share, the same for all blocks
        else:  # the queries of the prefix, and what they attend to
            block += batch.repeated * 2 * shape.queries * word
    if (
        drops
    ):  # in float32: query, key and value; weights and dropped ones, and which those are, for each pair of tokens
        block += batch.tokens * (3 * shape.queries * (WORD - word) + 3 * WORD * shape.heads * batch.longest)
    if shape.whole_scores:  # before and after the softmax, and its result in float32, for each pair of tokens in a row
        block += (2 * word + (WORD if word != WORD else 0)) * shape.heads * batch.tokens * batch.longest
    if recipe.gradient_checkpointing:
        return block + shape.layers * batch.tokens * shape.hidden * word + once
    return block * shape.layers + once


def dora_bytes(shape: ModelShape, recipe: AdapterRecipe, batch: Batch, word: int) -> int:
    """What DoRA keeps of a block besides LoRA's: two results of each layer, its update, and the identity that makes it."""
    if not recipe.use_dora:
        return 0
    return sum(
        batch.tokens * linear.outputs * (word + WORD) + linear.weights * word + linear.inputs**2 * WORD
        for linear in shape.targets(recipe)
    )


def is_padded(shape: ModelShape, recipe: AdapterRecipe) -> bool:
    """Whether the rows of a batch are padded to the longest, not packed."""
    return not (recipe.packing and shape.packs)


def count_positions(vocabulary: int, *, is_frugal: bool) -> int:
    """The positions whose logits train/fast/loss.py has in memory at once; fewer, and slower, with checkpointing.

    At a vocabulary of 151,936, 80 of them take 46 MiB instead of 148, and a seventh more time.
    """
    return max(16, min(CHUNK, FRUGAL_BYTES // (WORD * vocabulary) // 16 * 16)) if is_frugal else CHUNK


def head_bytes(shape: ModelShape, batch: Batch, word: int, *, is_frugal: bool) -> int:
    """The logits of a chunk in float32, then their exponentials in place, plus hidden states and gradients of their tokens.

    Full logits exist three times in the backward pass: their normalised logarithms, the gradient of these, and their own.
    """
    if shape.full_logits:
        return batch.tokens * shape.vocabulary * (3 * WORD + (2 * word if word != WORD else 0))
    positions = min(count_positions(shape.vocabulary, is_frugal=is_frugal), batch.supervised)
    copies = 2 if shape.softcapped_logits else 1
    logits = positions * shape.vocabulary * (copies * WORD + (word if word != WORD else 0))
    return logits + 2 * batch.supervised * shape.hidden * word
