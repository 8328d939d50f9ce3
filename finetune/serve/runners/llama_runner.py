"""Computes the logits of an engine with llama.cpp: all sequences in one pass, each with its adapter.

llama.cpp has the adapters of a pass in common. Here it has none: after the product of each weight that an adapter changes, it
calls back, and each row gets the update of its own adapter.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int32, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.artifacts import Adapter
from finetune.errors import CheckFailedError, InputError, SlmtuneError
from finetune.models.gguf.families import Shape
from finetune.models.gguf.lora import read_lora, read_matrices
from finetune.models.llama_library import (
    FLASH,
    FLOAT16,
    GgmlTensor,
    OnNode,
    open_library,
)
from finetune.records import count_alike
from finetune.serve.runners.llama_adapters import LlamaAdapters
from finetune.serve.runners.llama_batch import PASS, BatchArrays, split_passes
from finetune.serve.runners.llama_model import divide_memory, load_model
from finetune.serve.runners.memory import adapter_room, memory_left
from finetune.serve.runners.resident import ResidentAdapters
from finetune.serve.runners.runner import ADAPTER_COUNT, CHUNK, Extension, Opened

# Tokens of sequences that have ended, kept while several are in progress: a pass looks at all tokens in memory. With 4,800 of
# others, 8 rows of SmolLM2-135M took 133 instead of 76 ms, but one row 31 instead of 29.
KEPT = 1024
PROBE = tuple(range(5, 13))  # token ids: any will do
ALL = -1  # of llama.cpp: up to the last position


@dataclass
class _Slot:
    """A sequence in llama.cpp's memory: in progress, or kept for prompts that begin alike."""

    tokens: list[int] = field(default_factory=list)  # those that were computed
    adapter: str | None = None
    is_taken: bool = False
    used: int = 0  # a number that grows with each use


class LlamaRunner:
    """Extends sequences with the model in a GGUF file, until it is freed.

    Args:
        shape: of the base model from which the file was made; needed for adapters.
        max_memory: bytes that this process may take.
    """

    chunk = CHUNK

    def __init__(
        self,
        file: Path,
        shape: Shape | None = None,
        *,
        slots: int | None = None,
        context: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        self._library, self._shape = open_library(), shape
        self._model = load_model(self._library, file)
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.vocabulary = int(self._library.llama_vocab_n_tokens(self._vocabulary))
        # Those weights that no pass has read yet are not in memory.
        memory = memory_left(max_memory if max_memory is None else max_memory - file.stat().st_size)
        self.slots, self.context = divide_memory(self._library, self._model, slots, context, memory)
        self.room = self.slots * self.context
        self._adapters = LlamaAdapters()
        self._resident = ResidentAdapters(
            ADAPTER_COUNT, self._read_adapter, self._adapters.remove, adapter_room(max_memory, memory)
        )
        self._weights: dict[int, str] = {}  # the names of weights by their address, "" where no adapter changes them
        self._failure: Exception | None = None
        self._callback = OnNode()  # none before there are adapters: llama.cpp would ask it about every operation
        self._context = self._make_context()
        self._memory = self._library.llama_get_memory(self._context)
        self._batch = BatchArrays()
        self._clock = itertools.count(1)
        self._sequences = [_Slot() for _ in range(self.slots)]
        self._plain = self._probe(None)

    def free(self) -> None:
        """Return the memory. Can be called repeatedly."""
        if self._context is not None:
            self._library.llama_free(self._context)
            self._library.llama_model_free(self._model)
            self._context = None

    def __del__(self) -> None:
        if hasattr(self, "_context"):
            self.free()

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text without special tokens, if the file has a tokenizer."""
        data = text.encode()
        ids = (c_int32 * (len(data) + 1))()
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), ids, len(ids), False, False)
        return ids[: max(count, 0)]

    def open(self, prompt: Sequence[int], adapter: str | None) -> Opened:
        """Take a slot for a prompt; see `Runner`."""
        if adapter is not None:
            self._resident.use(adapter, self._in_use())
        shared = {
            number: count_alike(one.tokens, prompt[:-1])
            for number, one in enumerate(self._sequences)
            if one.adapter == adapter
        }
        source = max(shared, key=lambda number: shared[number], default=None)
        cached = 0 if source is None else shared[source]
        slot = self._choose(source, cached)
        if source is not None and source == slot:
            self._library.llama_memory_seq_rm(self._memory, slot, cached, ALL)
        else:
            self._library.llama_memory_seq_rm(self._memory, slot, ALL, ALL)
            if cached:
                self._library.llama_memory_seq_cp(self._memory, source, slot, 0, cached)
        self._sequences[slot] = _Slot(list(prompt[:cached]), adapter, True, next(self._clock))
        return Opened(slot, cached)

    def advance(self, extensions: Sequence[Extension]) -> Tensor:
        """Logits after each extension; see `Runner`."""
        if len(extensions) > 1:
            self._forget_oldest()
        # Neighbours with the same adapter are one product.
        order = sorted(range(len(extensions)), key=lambda number: self._adapter_of(extensions[number]) or "")
        result = torch.empty(len(extensions), self.vocabulary)
        lengths = {extension.slot: len(self._sequences[extension.slot].tokens) for extension in extensions}
        try:
            for part in split_passes([(number, extensions[number].tokens) for number in order]):
                self._compute([(extensions[number].slot, tokens) for number, tokens, _ in part], part, result)
        except Exception:
            for slot, length in lengths.items():  # some passes, or parts of one, may have been computed
                self._library.llama_memory_seq_rm(self._memory, slot, length, ALL)
                del self._sequences[slot].tokens[length:]
            raise
        return result

    def close(self, slot: int) -> None:
        """Free a slot; its sequence is kept for prompts that begin alike."""
        self._sequences[slot].is_taken = False
        self._sequences[slot].used = next(self._clock)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter under a name that is free; see `Runner`.

        Raises:
            CheckFailedError: it changes nothing.
            InputError: llama.cpp cannot add it to the base model.
        """
        self._resident.add(name, folder, self._in_use())
        if torch.equal(self._probe(name), self._plain):
            self.unload_adapter(name)
            raise CheckFailedError(
                f"The adapter at {folder} changes nothing: with and without it, llama.cpp computes the same. Train again, with "
                "a higher --learning-rate or more --max-steps"
            )

    def unload_adapter(self, name: str) -> None:
        """Remove an adapter that no slot uses, and what it computed."""
        self._resident.remove(name)
        for number, one in enumerate(self._sequences):
            if one.adapter == name:
                self._forget(number)

    def _read_adapter(self, name: str, folder: Path) -> None:
        if self._shape is None:
            raise InputError(f"A GGUF file is served without adapters. Serve {folder} beside its base model")
        adapter = Adapter.open(folder)
        if not self._callback:
            self._add_callback()
        self._adapters.put(name, read_matrices(adapter, read_lora(adapter, self._shape), self._shape))
        self._weights.clear()

    def _add_callback(self) -> None:
        """Make the context again, with the callback; sequences in progress are computed again."""
        self._callback = OnNode(self._on_node)
        self._library.llama_free(self._context)
        self._context = self._make_context()
        self._memory = self._library.llama_get_memory(self._context)
        for number, one in enumerate(self._sequences):
            tokens, one.tokens = tuple(one.tokens), []
            if one.is_taken and tokens:
                self.advance([Extension(number, tokens)])

    def _in_use(self) -> set[str | None]:
        return {one.adapter for one in self._sequences if one.is_taken}

    def _make_context(self) -> Any:
        settings = self._library.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = self.slots * self.context + len(PROBE), self.slots + 1
        settings.n_batch = settings.n_ubatch = PASS
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        settings.type_k = settings.type_v = FLOAT16
        settings.flash_attn_type = FLASH
        settings.cb_eval = self._callback
        settings.offload_kqv = settings.op_offload = False
        settings.swa_full = settings.kv_unified = (
            True  # any token can be removed; sequences share those that they begin with
        )
        context = self._library.llama_init_from_model(self._model, settings)
        if not context:
            raise SlmtuneError("llama.cpp cannot reserve memory for the context. Free memory, or serve a smaller model")
        return context

    def _choose(self, source: int | None, cached: int) -> int:
        """The free slot for a sequence that begins like the one in `source`: that one, if nothing is lost by it."""
        free = [number for number, one in enumerate(self._sequences) if not one.is_taken]
        if source in free and cached == len(self._sequences[source].tokens):
            return source
        return min(free, key=lambda number: self._sequences[number].used)

    def _adapter_of(self, extension: Extension) -> str | None:
        return self._sequences[extension.slot].adapter

    def _probe(self, adapter: str | None) -> Tensor:
        """The logits after a few tokens, (vocabulary,), in the sequence behind the slots."""
        self._sequences.append(_Slot([], adapter, is_taken=True))
        try:
            return self.advance([Extension(self.slots, tuple(token % self.vocabulary for token in PROBE))])[0]
        finally:
            self._forget(self.slots)
            self._sequences.pop()

    def _forget_oldest(self) -> None:
        """Forget the sequences that have not been used for longest, if those that have ended hold too many tokens."""
        ended = [number for number, one in enumerate(self._sequences) if one.tokens and not one.is_taken]
        total = 0
        for number in sorted(ended, key=lambda number: self._sequences[number].used, reverse=True):
            total += len(self._sequences[number].tokens)
            if total > KEPT:
                self._forget(number)

    def _forget(self, slot: int) -> None:
        """Free a slot without keeping its sequence."""
        self._library.llama_memory_seq_rm(self._memory, slot, ALL, ALL)
        self._sequences[slot] = _Slot()

    def _compute(
        self,
        pieces: Sequence[tuple[int, tuple[int, ...]]],
        part: Sequence[tuple[int, tuple[int, ...], bool]],
        result: Tensor,
    ) -> None:
        """Compute a pass, and put the logits of those extensions that end in it into their rows of `result`."""
        ends = self._batch.fill(
            [
                (slot, len(self._sequences[slot].tokens), tokens, is_end)
                for (slot, tokens), (_, _, is_end) in zip(pieces, part, strict=True)
            ]
        )
        names = [self._sequences[slot].adapter for slot, _ in pieces]
        self._adapters.assign(
            [(name, len(tokens)) for name, (_, tokens) in zip(names, pieces, strict=True)],
            [name for name, (_, _, is_end) in zip(names, part, strict=True) if is_end],
        )
        self._failure = None
        code = self._library.llama_decode(self._context, self._batch.header)
        if self._failure is not None:
            raise self._failure
        if code:
            raise SlmtuneError(f"llama.cpp cannot compute the pass (code {code}). Send the request again")
        for slot, tokens in pieces:
            self._sequences[slot].tokens += tokens
        rows = [number for number, _, is_end in part if is_end]
        for number, place in zip(rows, ends, strict=True):
            logits = self._library.llama_get_logits_ith(self._context, place)
            result[number] = torch.from_numpy(np.ctypeslib.as_array(logits, (self.vocabulary,)))

    def _on_node(self, address: int, is_question: bool, data: Any) -> bool:
        """Called by llama.cpp for each operation: whether to stop behind it, and then with its result."""
        if is_question:
            return (
                c_int.from_address(address + GgmlTensor.op.offset).value == self._library.multiplication
                and self._adapters.active
                and bool(self._weight_of(c_void_p.from_address(address + GgmlTensor.src.offset).value))
            )
        try:
            product = GgmlTensor.from_address(address)
            rows = product.ne[1] * product.ne[2] * product.ne[3]
            if rows:
                weight = self._weight_of(product.src[0])
                x = _as_tensor(GgmlTensor.from_address(product.src[1]), rows)
                self._adapters.add(weight, x, _as_tensor(product, rows))
        except Exception as error:  # it must not pass through llama.cpp
            self._failure = error
        return self._failure is None

    def _weight_of(self, address: int | None) -> str:
        """The name of the weight at an address, or nothing if no adapter changes it."""
        if address is None:
            return ""
        name = self._weights.get(address)
        if name is None:
            stored = GgmlTensor.from_address(address).name.decode("ascii", "replace")
            name = self._weights[address] = stored if stored in self._adapters else ""
        return name


def _as_tensor(tensor: GgmlTensor, rows: int) -> Tensor:
    """The numbers of a tensor of llama.cpp, (rows, features), in its own memory."""
    features: int = tensor.ne[0]
    numbers = (c_float * (features * rows)).from_address(tensor.data)
    return torch.frombuffer(numbers, dtype=torch.float32).view(rows, features)
