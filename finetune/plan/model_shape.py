"""The shape of a model, as far as memory and the size of an adapter depend on it."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.models.presets import Kind
from finetune.models.targets import is_target, match_pattern
from finetune.recipe import AdapterRecipe

OUTSIDE = ("lm_head", "embed_tokens")  # layers that are not in a block


@dataclass(frozen=True)
class Linear:
    """A linear layer of every block."""

    path: str  # in the block
    inputs: int
    outputs: int
    bias: bool

    @property
    def weights(self) -> int:
        """Number of weights in its matrix."""
        return self.inputs * self.outputs

    def rank(self, recipe: AdapterRecipe, block: int) -> int:
        """The rank of its LoRA matrices."""
        return match_pattern(recipe.rank_pattern, f"model.layers.{block}.{self.path}", recipe.lora_r)

    def is_target(self, targets: str | tuple[str, ...]) -> bool:
        """Whether PEFT adds LoRA matrices."""
        return is_target(targets, f"model.layers.0.{self.path}")


@dataclass(frozen=True)
class ModelShape:
    """A model: widths, the linear layers of a block, and the numbers per token that a block keeps for its backward pass.

    `activations` excludes LoRA's inner products, and attention scores if the softcap needs them whole; `in_float32` of
    them are in float32 even if the products are in bfloat16; `repeated` is what attention adds that needs as many key heads
    as query heads, on a GPU and over padded rows; `recomputed` is what train/fast/swiglu.py computes again instead of
    keeping, and `passing` are large numbers that a block with checkpointing makes and frees.

    An encoder has a head instead of logits over its vocabulary.
    """

    hidden: int
    inner: int  # width of the feed-forward block
    layers: int
    heads: int
    vocabulary: int
    tokenizer: int  # entries of its tokenizer, which may be fewer
    linears: tuple[Linear, ...]
    other_parameters: int  # embeddings, norms, biases, and the head if it has its own
    activations: int
    in_float32: int
    repeated: int
    recomputed: int
    passing: int
    queries: int  # per token
    keys: int  # and values, per token
    whole_scores: bool
    softcapped_logits: bool
    full_logits: bool  # for all tokens, not only supervised ones
    packs: bool  # whether rows can be packed; else they are padded, and so they are if recipe.packing is off
    shares: bool  # whether packed rows can share their prefix
    context: int | None  # tokens
    kind: Kind = "causal"
    outer: tuple[Linear, ...] = ()  # linear layers before the first block
    head_parameters: int = 0  # of an encoder, trained whole
    drops_scores: bool = False  # whether training drops attention weights

    @property
    def linear_parameters(self) -> int:
        """Weights that are quantised to 4 bits."""
        return self.layers * sum(linear.weights for linear in self.linears) + sum(one.weights for one in self.outer)

    @property
    def parameters(self) -> int:
        """All weights; shared ones count once."""
        return self.linear_parameters + self.other_parameters

    def adapter_parameters(self, recipe: AdapterRecipe) -> int:
        """Number of weights in an adapter: LoRA matrices, norms of DoRA, and modules that are trained whole."""
        targets, saved = self._targets(recipe), recipe.modules_to_save
        count = sum(linear.rank(recipe, block) * (linear.inputs + linear.outputs) for block, linear in targets)
        count += sum(
            recipe.lora_r * (one.inputs + one.outputs) for one in self.outer if one.is_target(recipe.target_modules)
        )
        count += sum(linear.outputs for _, linear in targets if recipe.use_dora)
        count += self.layers * sum(linear.weights for linear in self.linears if saved and linear.is_target(saved))
        return count + self.head_parameters + self.vocabulary * self.hidden * len({*saved} & {*OUTSIDE})

    def mean_ranks(self, recipe: AdapterRecipe) -> float:
        """The sum of the ranks of a block's LoRA matrices, on average over the blocks."""
        return sum(linear.rank(recipe, block) for block, linear in self._targets(recipe)) / self.layers

    def targets(self, recipe: AdapterRecipe) -> list[Linear]:
        """The linear layers of a block that have LoRA matrices."""
        return [linear for linear in self.linears if linear.is_target(recipe.target_modules)]

    def _targets(self, recipe: AdapterRecipe) -> list[tuple[int, Linear]]:
        """The linear layers that have LoRA matrices, each with the number of its block."""
        return [(block, linear) for block in range(self.layers) for linear in self.targets(recipe)]
