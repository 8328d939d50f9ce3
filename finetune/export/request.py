"""The input and the result of `slmtune export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.artifacts import Adapter
from finetune.merge.held_out import count_bundled
from finetune.merge.request import Distance
from finetune.recipe.options import ExportOptions
from finetune.records import Example


@dataclass(frozen=True)
class ExportRequest:
    """What to export and where the files go; a corpus supplies held-out rows, without which bundled ones are taken."""

    artifact: Path | str  # an adapter, a merged model, or a base model: a preset, a Hub id or a folder
    output_dir: Path
    options: ExportOptions
    corpus: Path | str | None = None
    model: str | None = None
    overwrite: bool = False
    train_command: str = Adapter.made_by


@dataclass(frozen=True)
class Agreement:
    """How closely the files, in their own runtime, follow the adapter on the same rows.

    KL in nats per token of the answers, or of an encoder per row and label. `greedy` is the share of equal greedy tokens, or
    of an encoder of equal predictions.
    """

    rows: int
    mean_kl: float
    greedy: float
    runtime: str  # with its version
    bundled_rows: int  # among the rows, as the corpus has too few

    @classmethod
    def on(cls, rows: Sequence[Example], distance: Distance, runtime: str) -> Agreement:
        """How closely the files follow the adapter, from the distance that was measured on these rows."""
        return cls(len(rows), distance.mean_kl, distance.greedy_agreement, runtime, count_bundled(rows))


@dataclass(frozen=True)
class Files:
    """What a format wrote: how it agrees with the adapter, and how the files are run."""

    agreement: Agreement | None
    quantization: str | None = None
    commands: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)  # further measurements, by name


@dataclass(frozen=True)
class ExportResult:
    """The export and how it was verified; `agreement` is None for files that no runtime here can run."""

    path: Path
    format: str
    quantization: str | None
    verified: bool
    mean_kl: float | None  # from the adapter, as in `agreement`
    greedy_agreement: float | None
    agreement: Agreement | None
    size_bytes: int  # of the files for the runtime
    seconds: float
    peak_memory_bytes: int
    commands: tuple[str, ...] = ()  # that run the files
    facts: Mapping[str, float] = field(default_factory=dict)  # further measurements, by name
