"""The data set card of a corpus: its contents, its sources and what was left out."""

from __future__ import annotations

from typing import Any

from finetune.cards.corpus_facts import CorpusFacts, by_size, describe_unused
from finetune.cards.templating import ENVIRONMENT
from finetune.recipe import Domain

SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\|<[`"})


def _cell(value: Any) -> Any:
    """Escape text for Markdown: it cannot break out of a table or become a link or HTML.

    Only text from a recipe is Markdown itself.
    """
    is_markdown = hasattr(value, "__html__")
    return " ".join(value.split()).translate(SPECIAL) if isinstance(value, str) and not is_markdown else value


MARKDOWN = ENVIRONMENT.overlay(keep_trailing_newline=True, finalize=_cell)  # keeps its own compiled templates


def card_text(domain: Domain | None, facts: CorpusFacts) -> str:
    """The card without its metadata. It contains no text of rows."""
    clusters = {size: count for size, count in (facts.clusters or {}).items() if size > 1}
    return MARKDOWN.get_template("dataset_card.md.jinja").render(
        facts=facts,
        description=domain.recipe.description if domain else "Rows for fine-tuning a language model.",
        caution=domain.recipe.caution if domain else None,
        by_task=by_size(facts.by_task),
        sources=sorted(facts.sources, key=lambda source: source.id),
        dropped=sorted(facts.dropped, key=lambda drop: (-drop[2], drop[0], drop[1])),
        unused=describe_unused(facts.unused, facts.sources),
        cleaned=by_size(facts.cleaned),
        clusters=sum(clusters.values()),
        clustered=sum(size * count for size, count in clusters.items()),
        largest=max(clusters, default=0),
        eval_sets=sorted(facts.eval_sets or (), key=lambda each: each.name),
        scrubbed=None if facts.scrubbed is None else by_size(facts.scrubbed),
    )
