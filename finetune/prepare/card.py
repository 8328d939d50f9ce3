"""The text of a corpus's data set card: what is in it, where it came from, what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune.recipe import Domain

TEMPLATES = Path(__file__).parent.parent / "templates"


def card_text(
    domain: Domain | None,
    splits: Mapping[str, int],
    sources: Sequence[Mapping[str, Any]],
    dropped: Mapping[str, int],
    scrubbed: Mapping[str, int] | None,
    by_task: Mapping[str, int],
) -> str:
    """The card without its metadata; `scrubbed` is None where nothing was scrubbed."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    text: str = environment.get_template("dataset_card.md.jinja").render(
        title=f"{domain.recipe.title} corpus" if domain else "Corpus",
        description=domain.recipe.description if domain else "Rows for fine-tuning a language model.",
        caution=domain.recipe.caution if domain else None,
        splits=splits,
        by_task=by_task,
        sources=[{name: _cell(value) for name, value in source.items()} for source in sources],
        dropped=dropped,
        scrubbed=scrubbed,
    )
    return text


def _cell(value: object) -> str:
    """Text that cannot break out of a table."""
    return " ".join(str("" if value is None else value).split()).replace("|", "\\|")
