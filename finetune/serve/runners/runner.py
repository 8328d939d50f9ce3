"""What computes the logits of an engine: several sequences at once, each with its own adapter and its cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

SLOT_COUNT = 16  # sequences held at once
ADAPTER_COUNT = 16  # in memory; others are read again when they are asked for
CHUNK = 256  # tokens of prompts in a pass, for which all sequences wait


@dataclass(frozen=True, slots=True)
class Opened:
    """A slot for a sequence, and how many tokens at the start of its prompt are in its cache already."""

    slot: int
    cached: int


@dataclass(frozen=True, slots=True)
class Extension:
    """Tokens that follow those that a slot already holds; at least one."""

    slot: int
    tokens: tuple[int, ...]


class Runner(Protocol):
    """A model that extends sequences. Only one thread uses it."""

    @property
    def context(self) -> int:
        """The number of tokens that a sequence may have, prompt and answer together."""
        ...

    @property
    def slots(self) -> int:
        """The number of sequences that are held at once."""
        ...

    @property
    def room(self) -> int:
        """The number of tokens that all sequences together may have, so that memory suffices."""
        ...

    @property
    def chunk(self) -> int:
        """The number of tokens of prompts that a pass may have, so that other sequences do not wait long for it."""
        ...

    def open(self, prompt: Sequence[int], adapter: str | None) -> Opened:
        """Take a free slot for a prompt; the caller extends it with the tokens after the cached ones, at least one.

        Cached tokens were computed with the same adapter.
        """
        ...

    def advance(self, extensions: Sequence[Extension]) -> torch.Tensor:
        """Logits after the last token of each extension, (extensions, vocabulary) in float32.

        Each slot occurs once. After an error, all slots hold what they held before.
        """
        ...

    def close(self, slot: int) -> None:
        """Free a slot."""
        ...

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter under a name that is free; `open` may then ask for it.

        Raises:
            CheckFailedError: it changes nothing.
            InputError: it cannot be added to the model.
        """
        ...

    def unload_adapter(self, name: str) -> None:
        """Remove an adapter that no slot uses, and what it computed."""
        ...
