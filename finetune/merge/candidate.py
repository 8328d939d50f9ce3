"""One merge of an adapter onto one form of its base's weights: written, replayed, and compared with the adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from finetune.errors import InputError
from finetune.merge.distance import measure_distance, store_traces
from finetune.merge.request import Candidate, Onto
from finetune.merge.score import score_rows
from finetune.merge.weights.plan import Planned, plan_weights, split_shards
from finetune.merge.weights.replay import replay_weights
from finetune.merge.weights.write import write_weights
from finetune.models.chat_template import end_of_turn_ids, render
from finetune.models.find import BaseModel
from finetune.models.heads import Head, build_skeleton, head_modules, write_head_config
from finetune.models.load import LoadedModel, compute_dtype, load, load_base
from finetune.models.quantize import Rounding, rounding_of
from finetune.models.tokenizer import load_tokenizer, save_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example

# Limits of the mean KL divergence in nats per token, or of an encoder per row and label.
MAX_SAME_KL = 0.05  # onto the weights that the adapter saw, where only their rounding differs
MAX_OTHER_KL = 0.35  # onto the original weights of an adapter that was trained over quantised ones


@dataclass(frozen=True)
class Source:
    """The adapter that is merged, its base model, and the rows on which the merges are compared."""

    adapter: Path
    base: BaseModel
    recipe: AdapterRecipe
    head: Head | None
    rows: Sequence[Example]

    @cached_property
    def shards(self) -> Mapping[str, Sequence[Planned]]:
        """The tensors of the merged model by the file that they go into."""
        return split_shards(plan_weights(self.base.folder, self.head, self.adapter))

    @property
    def weights_size(self) -> int:
        """Bytes of the weights of the merged model."""
        return sum(one.form.size for planned in self.shards.values() for one in planned)

    @property
    def traces_size(self) -> int:
        """Bytes of the logits that wait for a comparison; those of an encoder do not count."""
        if self.head is not None:
            return 0
        tokenizer = load_tokenizer(self.adapter, self.base)
        vocabulary = int(build_skeleton(self.base.folder, None).config.get_text_config().vocab_size)
        return sum(sum(render(tokenizer, row).supervised) for row in self.rows) * vocabulary * 4

    def rounding(self, onto: Onto) -> Rounding | None:
        """What becomes of the base's weights before the merge; None: nothing."""
        if onto == "original":
            return None
        model = build_skeleton(self.base.folder, self.head)
        plain = None if self.head is None else head_modules(model)
        return rounding_of(model, self.recipe.quantization, compute_dtype(self.recipe), plain)


def choose_forms(onto: str, recipe: AdapterRecipe) -> tuple[Onto, ...]:
    """The forms of the base's weights onto which to merge.

    Raises:
        InputError: the adapter saw no dequantised weights.
    """
    if onto == "dequantized" and not recipe.is_quantized:
        raise InputError(
            "--onto dequantized: this adapter was trained over unquantised weights. Leave it out, or use --onto original"
        )
    if onto == "original" or not recipe.is_quantized:
        return ("original",)
    return ("dequantized",) if onto == "dequantized" else ("original", "dequantized")


def trace_adapter(source: Source, folder: Path) -> float | None:
    """Trace the adapter over its base as trained into a folder; returns its score.

    Raises:
        CheckFailedError: the adapter changes nothing.
    """
    loaded = load(source.base, source.recipe, source.adapter, source.head)
    store_traces(loaded, source.rows, source.recipe.max_length, folder)
    return score_rows(loaded, source.rows, source.recipe.max_length)


def write_candidate(source: Source, onto: Onto, folder: Path) -> None:
    """Write a merged model, without the shards that are in the folder already."""
    folder.mkdir(exist_ok=True)
    write_weights(source.shards, folder, source.rounding(onto))
    model = build_skeleton(source.base.folder, source.head)
    write_head_config(model, folder)
    tokenizer = load_tokenizer(source.adapter, source.base)
    save_tokenizer(tokenizer, folder, is_encoder=source.head is not None)
    if source.head is None:
        generation = _read_generation(source.base.folder, model.config)
        generation.eos_token_id = end_of_turn_ids(tokenizer)
        generation.pad_token_id = tokenizer.pad_token_id
        generation.save_pretrained(folder)


def check_candidate(source: Source, onto: Onto, folder: Path, traces: Path, keep: Path | None) -> Candidate:
    """Replay the stored weights, and compare the stored model with the adapter.

    Args:
        traces: the folder of the adapter's traces.
        keep: a new folder for the traces of the stored model; None: they are not needed.

    Raises:
        CheckFailedError: a stored tensor is not what base and adapter give.
    """
    skeleton = build_skeleton(source.base.folder, source.head)
    replay = replay_weights(source.shards, folder, skeleton, source.adapter, source.rounding(onto))
    plain = source.recipe.model_copy(update={"quantization": "none"})
    model = load_base(folder, plain, head=source.head).eval()
    loaded = LoadedModel(model, load_tokenizer(folder, source.base), source.base, source.head)
    is_same = onto == "dequantized" or not source.recipe.is_quantized
    return Candidate(
        onto,
        measure_distance(loaded, source.rows, source.recipe.max_length, traces, keep),
        score_rows(loaded, source.rows, source.recipe.max_length),
        replay,
        MAX_SAME_KL if is_same else MAX_OTHER_KL,
    )


def _read_generation(folder: Path, config: Any) -> GenerationConfig:
    """The generation settings of a base model; those that follow from its config if it has none."""
    if (folder / "generation_config.json").is_file():
        settings: GenerationConfig = GenerationConfig.from_pretrained(folder, local_files_only=True)
        return settings
    return GenerationConfig.from_model_config(config)
