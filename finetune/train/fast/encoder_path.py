"""Makes an encoder fast as far as it still computes the same: packed rows and fused layers, compared before the first step."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from finetune.train.batches.collate import NumberedRows
from finetune.train.batches.encoder_batches import EncoderBatches
from finetune.train.batches.labelled import LabelledRows
from finetune.train.fast import encoder_attention
from finetune.train.fast.fast_path import EXACT, LARGEST, ROUNDED, TIMES_ROUNDING, restore_lora_layers
from finetune.train.fast.lora_linear import join_siblings
from finetune.train.fast.obstacles import find_obstacle

log = logging.getLogger(__name__)

COMPARED = 3  # rows, besides the longest


@dataclass(frozen=True)
class Answers:
    """What a model computes for the compared rows, which are in the order of their lengths."""

    hidden: Tensor  # (tokens of all rows, width)
    logits: Tensor  # (rows, classes), or (tokens of all rows, 2)

    def difference(self, other: Answers) -> float:
        """The largest difference of a hidden state or of the logits of a row or token, relative to its length."""
        pairs = (self.hidden, other.hidden), (self.logits, other.logits)
        return max(float(((theirs - ours).norm(dim=-1) / ours.norm(dim=-1)).max()) for ours, theirs in pairs)


class EncoderPath:
    """Chooses the batches of an encoder, and runs it on them.

    Args:
        model: the encoder with its head, still untouched.
        rows: the rows of the run.
    """

    def __init__(self, model: Any, rows: NumberedRows[LabelledRows], pad_token: int) -> None:
        names = inspect.signature(model.forward).parameters
        self.batches = EncoderBatches(
            rows,
            pad_token,
            has_types="token_type_ids" in names and model.config.type_vocab_size > 1,
            first_position=_first_position(model),
        )
        self._obstacle = find_obstacle(model) or (None if "position_ids" in names else "the model takes no positions")
        self._attention = model.config._attn_implementation
        self._compared = _choose_rows(rows.training)
        self._expected = self._ask(model, self.batches)
        self._limit = EXACT[0]
        if model.dtype not in (torch.float32, torch.float64):
            alone = [self._ask(model, self.batches, [number]) for number in self._compared]
            measured = self._expected.difference(
                Answers(torch.cat([one.hidden for one in alone]), torch.cat([one.logits for one in alone]))
            )
            self._limit = min(max(ROUNDED[0], TIMES_ROUNDING * measured), LARGEST)

    def begin(self, model: Any, *, packing: bool) -> None:
        """Set up the model, now with LoRA layers that have no effect yet, for the fastest batches that it computes right."""
        restore_head(model)
        join_siblings(model)
        padded, reason = self.batches, self._obstacle
        if packing and reason is None:
            encoder_attention.register()
            model.set_attn_implementation(encoder_attention.PACKED)
            hook = find_last_layer(model).register_forward_hook(encoder_attention.unpack, with_kwargs=True)
            self.batches = replace(padded, packs=True)
            difference = self._expected.difference(self._ask(model, self.batches))
            if difference <= self._limit:
                return
            hook.remove()
            model.set_attn_implementation(self._attention)
            self.batches = padded
            reason = f"packed, this model's hidden states differ by {difference:.2g} of their length"
        if packing:
            log.warning("Batches are padded, which is slower: %s.", reason)
        difference = self._expected.difference(self._ask(model, padded))
        if not difference <= self._limit:
            restore_lora_layers(model)
            log.warning(
                "Training does without fused LoRA layers, which is slower: with them, this model's hidden states differ by "
                "%.2g of their length.",
                difference,
            )

    def arrange(self, rows: list[int]) -> list[int]:
        """Rows in the order of their lengths if they are padded, so that passes of few rows have little padding."""
        return rows if self.batches.packs else sorted(rows, key=lambda number: len(self.batches.rows[number].tokens))

    def run(self, model: Any, batch: dict[str, Any]) -> Any:
        """The output of the model for a batch, with logits of (rows, classes), or of (rows, longest) twice."""
        inputs = dict(batch["inputs"])
        if "layout" in inputs:
            inputs["layout"] = inputs["layout"].to(inputs["input_ids"].device)
        return model(**inputs)

    def _ask(self, model: Any, batches: EncoderBatches, numbers: Sequence[int] | None = None) -> Answers:
        """What the model computes without gradient and dropout; `numbers`: of some of the compared rows."""
        batch = batches([{"number": number} for number in numbers or self._compared])
        device = next(model.parameters()).device
        batch["inputs"] = {name: value.to(device) for name, value in batch["inputs"].items()}
        states: list[Tensor] = []
        hook = find_last_layer(model).register_forward_hook(lambda module, inputs, output: states.append(output))
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                output = self.run(model, batch)
        finally:
            hook.remove()
            model.train(was_training)
        real = batch["inputs"]["attention_mask"].bool()
        logits = (
            output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], -1)[real]
        )
        return Answers(states[0][real].float(), logits.float())


def restore_head(model: nn.Module) -> None:
    """Give the modules that are trained whole their weights of float32 again, and let them take inputs of any precision.

    SFTTrainer rounds them to bfloat16 on a quantised base, as LoRA matrices (see `precision.restore_precision`).
    """
    for wrapper in model.modules():
        if not isinstance(wrapper, ModulesToSaveWrapper):
            continue
        original = wrapper.original_module.state_dict()
        for module in wrapper.modules_to_save.values():
            module.load_state_dict(original)
            for part in module.modules():
                if isinstance(part, nn.Linear | nn.LayerNorm):
                    part.register_forward_pre_hook(_cast_input)


def _cast_input(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    weight: Any = module.weight
    return inputs[0].to(weight.dtype), *inputs[1:]


def find_last_layer(model: Any) -> nn.Module:
    """The last layer of the encoder."""
    count = model.config.num_hidden_layers
    stacks = (
        module for module in model.base_model.modules() if isinstance(module, nn.ModuleList) and len(module) == count
    )
    return next(stacks)[-1]


def _first_position(model: Any) -> int:
    """What positions count from: RoBERTa and its relatives skip those up to the number of the padding token."""
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    return embeddings.padding_idx + 1 if hasattr(embeddings, "create_position_ids_from_input_ids") else 0


def _choose_rows(rows: LabelledRows) -> list[int]:
    """Numbers of rows of different lengths, the longest of all among them, in the order of their lengths."""
    order = np.argsort(rows.lengths, kind="stable")
    places = np.linspace(0, len(order) - 1, min(COMPARED + 1, len(order))).astype(int)
    return [int(order[place]) for place in places]
