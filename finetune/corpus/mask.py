"""Shows rows as a base model sees them in training: the rendered chat template, and the tokens that carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.corpus.open import open_corpus
from finetune.corpus.view import draw_samples
from finetune.models.chat_template import Rendering, render_conversations
from finetune.models.tokenizer import find_tokenizer
from finetune.recipe import load_adapter_recipe
from finetune.recipe.option_fields import check
from finetune.recipe.options import SEED, ShowOptions
from finetune.records import Example, Split, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class MaskedText:
    """The text of consecutive tokens that all carry loss, or all do not."""

    text: str
    supervised: bool


@dataclass(frozen=True)
class MaskedRow:
    """A row in tokens: `mask` says which of the `ids` carry loss.

    Tokens beyond the maximum length of training are not among them: `cut` is their number. `rejected` is the conversation
    with the rejected answer, if the row is a pair.
    """

    ids: tuple[int, ...]
    mask: tuple[bool, ...]
    pieces: tuple[MaskedText, ...]
    cut: int
    rejected: MaskedRow | None = None

    @property
    def supervised(self) -> int:
        """The number of tokens that carry loss."""
        return sum(self.mask)


@dataclass(frozen=True)
class MaskedSample:
    """A row of a corpus, with its text."""

    id: str
    split: Split
    task: Task
    row: MaskedRow


@dataclass(frozen=True)
class MaskView:
    """Some rows of a corpus as `model` sees them if it is trained with `max_length`."""

    corpus: Path
    model: str
    max_length: int
    samples: tuple[MaskedSample, ...]


def show_mask(
    corpus_path: Path | str, *, model: str | None = None, samples: int = ShowOptions.samples, seed: int = SEED
) -> MaskView:
    """Render some rows of a corpus, the same as `show_corpus` shows.

    Args:
        corpus_path: the folder of the corpus, or its address.
        model: preset, Hub id or folder whose tokenizer renders the rows; only the tokenizer is downloaded. None: the
            default model of the corpus's domain, whose tokenizer must be on this machine.
        samples: number of rows to show per task.
        seed: selects the rows to show.

    Raises:
        MissingStageError, ArtifactError: see `show_corpus`.
        InputError, OfflineError, HubError: there is no such tokenizer, or its chat template rejects a row.
    """
    check(ShowOptions(samples=samples))
    corpus = open_corpus(corpus_path)
    recipe = load_adapter_recipe(corpus.manifest.get("domain"), None, {"model": model})
    tokenizer = find_tokenizer(recipe.model, fetch=model is not None)
    shown = tuple(
        MaskedSample(example.id, split, example.task, mask_row(tokenizer, example, recipe.max_length))
        for split, example in draw_samples(corpus, samples, seed)
    )
    return MaskView(corpus.path, recipe.model, recipe.max_length, shown)


def mask_row(tokenizer: PreTrainedTokenizerBase, example: Example, max_length: int) -> MaskedRow:
    """Render a row as training does, truncated to `max_length` tokens.

    Raises:
        InputError: the chat template rejects the row.
    """
    row, *rejected = (_mask(tokenizer, each, max_length) for each in render_conversations(tokenizer, example))
    return replace(row, rejected=rejected[0]) if rejected else row


def _mask(tokenizer: PreTrainedTokenizerBase, rendered: Rendering, max_length: int) -> MaskedRow:
    ids, mask = rendered.ids[:max_length], rendered.supervised[:max_length]
    return MaskedRow(ids, mask, tuple(_pieces(tokenizer, ids, mask)), len(rendered.ids) - len(ids))


def _pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], mask: Sequence[bool]) -> list[MaskedText]:
    runs = groupby(zip(ids, mask, strict=True), key=lambda token: token[1])
    return [
        MaskedText(str(tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False)), supervised)
        for supervised, run in runs
    ]
