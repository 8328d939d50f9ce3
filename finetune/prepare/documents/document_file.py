"""Saves an extracted document in the work folder, and loads it again."""

from __future__ import annotations

import json
from pathlib import Path

from finetune.records import Document, Section


def save_document(document: Document, path: Path) -> None:
    """Write a document as JSON."""
    sections = [[section.heading, section.level, section.text] for section in document.sections]
    fields = {
        "title": document.title,
        "sections": sections,
        "unused": dict(document.unused),
        "encoding": document.encoding,
        "group": document.group,
    }
    path.write_text(json.dumps(fields, ensure_ascii=False), "utf-8")


def load_document(path: Path) -> Document:
    """Load a document written by `save_document`."""
    fields = json.loads(path.read_text("utf-8"))
    return Document(**fields | {"sections": tuple(Section(*section) for section in fields["sections"])})
