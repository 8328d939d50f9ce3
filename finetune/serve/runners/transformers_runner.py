"""Computes the logits of an engine with transformers: all sequences in one forward pass, each with its adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from finetune.errors import CheckFailedError
from finetune.models.effect import explain_no_effect
from finetune.models.load import LoadedModel
from finetune.models.structure import attention_of, find_state
from finetune.serve.runners.adapter_stack import AdapterStack
from finetune.serve.runners.adapter_weights import read_adapter
from finetune.serve.runners.memory import adapter_room, memory_left
from finetune.serve.runners.packed_linear import pack_linear_layers
from finetune.serve.runners.prefix_cache import PrefixCache
from finetune.serve.runners.resident import ResidentAdapters
from finetune.serve.runners.runner import ADAPTER_COUNT, CHUNK, SLOT_COUNT, Extension, Opened
from finetune.serve.runners.sequence_cache import SequenceCache, SequencePool
from finetune.serve.runners.short_layers import shorten_layers
from finetune.serve.runners.slot_attention import SLOTS, Span, Spans, register

PREFIX_SHARE = 0.1  # of the free memory, for sequences that have ended
CACHE_SHARE = 0.3  # of the free memory, for the tokens of running sequences; growing caches take up to twice that
PROBE = tuple(range(5, 13))  # token ids: any will do
CLOSE = 1e-2  # of the largest logit; sums in another order change less even in bfloat16, wrong attention more
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # whose layers do not see the tokens in their order
ROTATIONS = ("dynamic", "longrope")  # that depend on the longest sequence of a pass


@dataclass
class _Slot:
    """A sequence in a slot."""

    adapter: str | None
    tokens: list[int]  # those that were computed
    cache: Any  # a SequenceCache, or transformers' own


class TransformersRunner:
    """Extends sequences with a loaded causal language model.

    Models whose tokens pass on more than keys and values, or whose attention is not known here, compute one sequence after
    the other, each prompt at once and without a prefix cache.

    Args:
        slots: sequences at once.
        adapters: the number that is kept in memory; those used least recently make room for others.
        max_memory: bytes that this process may take, of which some are left for running and for ended sequences.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        slots: int = SLOT_COUNT,
        adapters: int = ADAPTER_COUNT,
        max_memory: int | None = None,
    ) -> None:
        self.context, self.slots = loaded.context, slots
        self.room = slots * loaded.context
        self._model = loaded.model
        self._adapters = AdapterStack(loaded.model)
        self._resident = ResidentAdapters(
            adapters, self._read_adapter, self._adapters.remove, adapter_room(max_memory, memory_left(max_memory))
        )
        self._taken: dict[int, _Slot] = {}
        # On a GPU, memory is taken before tokens arrive, and sequences have theirs one by one.
        self._pool = SequencePool(max(slots, 2)) if loaded.model.device.type == "cpu" else None
        self._prefixes = PrefixCache(2 * slots, int(PREFIX_SHARE * memory_left(max_memory)))
        pack_linear_layers(loaded.model, memory_left(max_memory))
        shorten_layers(loaded.model)
        register()
        self._is_joint = _attends_only(loaded.model) and self._is_joint_right(max_memory)
        if max_memory is not None:
            self.context = max(1, min(self.context, self.room))
        self.chunk = CHUNK if self._is_joint else slots * self.context

    @torch.inference_mode()
    def open(self, prompt: Sequence[int], adapter: str | None) -> Opened:
        """Take a slot for a prompt; see `Runner`."""
        if adapter is not None:
            self._resident.use(adapter, self._in_use())
        number = next(number for number in range(self.slots) if number not in self._taken)
        cache = SequenceCache(self._pool, number) if self._is_joint else None
        if cache is not None:
            self._prefixes.fill(cache, prompt, adapter)
        cached = 0 if cache is None else cache.length
        self._taken[number] = _Slot(adapter, list(prompt[:cached]), cache)
        return Opened(number, cached)

    def advance(self, extensions: Sequence[Extension]) -> Tensor:
        """Logits after each extension; see `Runner`."""
        with torch.inference_mode():
            if self._is_joint:
                return self._advance_joint(extensions)
            lengths = {extension.slot: len(self._taken[extension.slot].tokens) for extension in extensions}
            try:
                return torch.stack([self._advance_alone(extension) for extension in extensions])
            except Exception:
                for slot, length in lengths.items():  # some layers, or some sequences, may have gone on
                    del self._taken[slot].tokens[length:]
                    self._taken[slot].cache = None  # computed again
                raise

    @torch.inference_mode()
    def close(self, slot: int) -> None:
        """Free a slot; its sequence is kept for prompts that begin alike."""
        taken = self._taken.pop(slot)
        if self._is_joint:
            self._prefixes.keep(taken.tokens, taken.adapter, taken.cache)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter under a name that is free; see `Runner`.

        Raises:
            ArtifactError: its tensors do not fit the base model.
            CheckFailedError: it changes nothing.
            InputError: it is of a kind that cannot be computed beside others.
        """
        self._resident.add(name, folder, self._in_use())
        if not self._adapters.changes(name):
            self.unload_adapter(name)
            raise CheckFailedError(
                f"The adapter at {folder} changes nothing: with and without it, each layer computes the same. "
                f"{explain_no_effect(False, False)}"
            )

    def unload_adapter(self, name: str) -> None:
        """Remove an adapter that no slot uses, and what it computed."""
        self._resident.remove(name)
        self._prefixes.forget(name)

    def _read_adapter(self, name: str, folder: Path) -> None:
        self._adapters.add(name, read_adapter(folder, self._model))

    def _in_use(self) -> set[str | None]:
        return {taken.adapter for taken in self._taken.values()}

    def _probe(self) -> Tensor:
        """The logits of the base model after each of a few tokens, (tokens, vocabulary)."""
        ids = torch.tensor([PROBE], device=self._model.device) % self._model.config.get_text_config().vocab_size
        with torch.inference_mode():
            logits: Tensor = self._model(input_ids=ids, use_cache=False).logits[0]
        return logits

    def _is_joint_right(self, max_memory: int | None) -> bool:
        """Whether two sequences in one pass, both of them in parts, have the logits that the model computes alone."""
        expected = self._probe()[[-1, 2]].float()
        ids = [token % self._model.config.get_text_config().vocab_size for token in PROBE]
        self._taken = {number: _Slot(None, [], SequenceCache(self._pool, number)) for number in range(2)}
        try:
            with torch.inference_mode():
                self._advance_joint([Extension(0, tuple(ids[:5]))])
                self._advance_joint([Extension(0, tuple(ids[5:-1])), Extension(1, tuple(ids[:2]))])
                logits = self._advance_joint([Extension(0, (ids[-1],)), Extension(1, (ids[2],))])
        except (TypeError, ValueError, AttributeError):  # its attention is computed in another way
            return False
        finally:
            cache, self._taken = self._taken[0].cache, {}
        self.room = min(self.room, int(CACHE_SHARE * memory_left(max_memory)) // max(1, cache.bytes_per_token))
        return bool((logits - expected).abs().max() <= CLOSE * expected.abs().max())

    def _advance_joint(self, extensions: Sequence[Extension]) -> Tensor:
        # Neighbours with the same adapter are one product, and single tokens of several adapters as well.
        order = sorted(range(len(extensions)), key=lambda number: self._rank(extensions[number]))
        tokens: list[int] = []
        positions: list[int] = []
        spans: list[Span] = []
        for number in order:
            extension = extensions[number]
            cache = self._taken[extension.slot].cache
            spans.append(Span(cache, len(tokens), len(tokens) + len(extension.tokens)))
            tokens += extension.tokens
            positions += range(cache.length, cache.length + len(extension.tokens))
        self._adapters.assign(
            [(self._taken[extensions[number].slot].adapter, len(extensions[number].tokens)) for number in order]
        )
        device = self._model.device
        with attention_of(self._model, SLOTS):
            output: Any = self._model(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=torch.tensor([positions], device=device),
                use_cache=False,
                logits_to_keep=torch.tensor([span.end - 1 for span in spans], device=device),
                spans=Spans(spans),
            )
        logits: Tensor = output.logits[0].float()
        for extension in extensions:
            taken = self._taken[extension.slot]
            taken.tokens += extension.tokens
            taken.cache.length += len(extension.tokens)
        result = torch.empty_like(logits)
        result[torch.tensor(order, device=device)] = logits
        return result

    def _rank(self, extension: Extension) -> tuple[bool, str]:
        """What sequences are sorted by within a pass."""
        return len(extension.tokens) > 1, self._taken[extension.slot].adapter or ""

    def _advance_alone(self, extension: Extension) -> Tensor:
        """Logits after an extension, (vocabulary,), through the model's own cache."""
        taken = self._taken[extension.slot]
        tokens = [*extension.tokens] if taken.cache is not None else [*taken.tokens, *extension.tokens]
        self._adapters.assign([(taken.adapter, len(tokens))])
        ids = torch.tensor([tokens], device=self._model.device)
        output: Any = self._model(input_ids=ids, past_key_values=taken.cache, use_cache=True)
        taken.tokens += extension.tokens
        taken.cache = getattr(output, "past_key_values", None)  # without one, each pass computes all tokens again
        logits: Tensor = output.logits[0, -1].float()
        return logits


def _attends_only(model: Any) -> bool:
    """Whether, as far as its configuration says, a token sees others through attention alone, and all in the same way."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, dict)}
    return (
        model._supports_attention_backend
        and find_state(model) is None
        and not any(getattr(config, name, None) for name in EXPERTS)
        and kinds.isdisjoint(ROTATIONS)
    )
