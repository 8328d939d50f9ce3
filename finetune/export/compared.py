"""What the exports that transformers converts share: files are written, then compared with the adapter as it was trained."""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune.artifacts import Adapter, Model
from finetune.errors import CheckFailedError
from finetune.export.merged import merge_for_export
from finetune.export.request import ExportRequest
from finetune.merge.distance import measure_distance, store_traces
from finetune.merge.held_out import choose_rows
from finetune.merge.request import Distance
from finetune.models.encoder_inputs import encode
from finetune.models.heads import write_head_config
from finetune.models.load import LoadedModel, load_merged
from finetune.models.tokenizer import save_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.scoring.encoders import prediction_logits

Stage = Callable[[str], None]

TIMED_ROWS = 32
MAX_LOGIT_DIFFERENCE = 1e-3  # between a file in float32 and the same weights in torch; docs/guide/export.md says why


@dataclass(frozen=True)
class Compared:
    """A model in torch, in float32, and its file in the other runtime.

    Args:
        gap: the largest difference between two logits of the file and the same weights in torch.
        distance: how far the file is from the adapter as trained, or from the merged model if there is no adapter.
    """

    plain: LoadedModel
    exported: LoadedModel
    rows: Sequence[Example]
    max_length: int
    gap: float
    distance: Distance

    def time_rows(self) -> dict[str, float]:
        """The milliseconds that an encoder takes for a row, under the names that are printed."""
        return {"ms per row": self._milliseconds(self.exported), "ms per row in torch": self._milliseconds(self.plain)}

    def _milliseconds(self, loaded: LoadedModel) -> float:
        """The median time for one row by itself."""
        times = []
        for row in self.rows[:TIMED_ROWS]:
            tokens = encode(loaded.tokenizer, row, self.max_length)
            started = time.perf_counter()
            prediction_logits(loaded, tokens)
            times.append(time.perf_counter() - started)
        return round(1000 * statistics.median(times), 2)

    def require_close(self, limit: float, *, is_exact: bool, way_out: str) -> None:
        """Refuse a file whose mean KL is above `limit`, or, if `is_exact`, whose logits are not those of torch.

        Raises:
            CheckFailedError: says by how much.
        """
        kl = self.distance.mean_kl
        if kl <= limit and (not is_exact or self.gap <= MAX_LOGIT_DIFFERENCE):
            return
        raise CheckFailedError(
            f"The exported file does not follow the adapter: mean KL {kl:.4f} nats (limit {limit}), largest difference from "
            f"the same weights in torch {self.gap:.2g}. Nothing was written. {way_out}"
        )


def convert_and_compare(
    artifact: Adapter | Model,
    request: ExportRequest,
    folder: Path,
    stage: Stage,
    convert: Callable[[LoadedModel], Any],
    rows: int,
) -> Compared:
    """Convert a model, an adapter merged first, and compare the result on at most `rows` held-out rows.

    Args:
        convert: writes the files of a model, and returns what takes its place in a LoadedModel.
    """
    with TemporaryDirectory(dir=folder) as scratch:
        exact = trained = Path(scratch, "exact")
        model = artifact
        if isinstance(artifact, Adapter):
            merged = merge_for_export(artifact, request, Path(scratch), stage, rows)
            model, trained = merged.model, merged.adapter_traces
        assert isinstance(model, Model)
        plain = load_merged(model)
        plain.model.float()
        chosen = choose_rows(request.corpus, plain.tokenizer, plain.head, rows)
        length = max_length(artifact)
        stage("tracing the model")
        store_traces(plain, chosen, length, exact)
        stage("writing the file, and running it")
        exported = replace(plain, model=convert(plain))
        gap = measure_distance(exported, chosen, length, exact).max_abs_logit_diff
        distance = measure_distance(exported, chosen, length, trained)
    return Compared(plain, exported, chosen, length, gap, distance)


def write_settings(loaded: LoadedModel, folder: Path) -> None:
    """Write the configuration, the tokenizer and, of a model that writes, what ends a text."""
    write_head_config(loaded.model, folder)
    tokenizer = loaded.tokenizer
    tokenizer.model_max_length = loaded.context  # where programs without transformers cut a text
    if loaded.head is None:
        loaded.model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder, save_jinja_files=False)  # transformers.js has the template from the settings
    else:
        save_tokenizer(tokenizer, folder, is_encoder=True)


@contextmanager
def silence() -> Iterator[None]:
    """Keep what the converters print, log and warn of for each stage, library and operator away from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def max_length(artifact: Adapter | Model) -> int:
    """The tokens of a row in training."""
    return AdapterRecipe.model_validate(artifact.config.get("adapter_config", artifact.config)).max_length
