"""Jupyter notebooks: their texts as Markdown, and their code in fences, without what it printed.

With the standard library: a notebook is JSON, of format 4 or, before 2015, 3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.documents.markdown import add_markdown
from finetune.prepare.documents.outline import Outline, code
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

MAX_TEXT = 10 * 2**20  # characters of cells: as much as of Markdown


def read(data: bytes, shown: str) -> Document:
    """The cells in order; outputs, attachments and raw cells are counted.

    Raises:
        Unusable: it is damaged, or has no text.
    """
    try:
        notebook = json.loads(decode(data, shown))
        cells = (
            notebook["cells"]
            if "cells" in notebook
            else [each for sheet in notebook["worksheets"] for each in sheet["cells"]]
        )
        metadata = notebook.get("metadata") or {}
        texts = [(cell, _text(cell)) for cell in cells]
        language = _language(metadata)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unusable("damaged_notebook", "it is not a Jupyter notebook, or is damaged. Save it again") from None
    if sum(len(text) for _, text in texts) > MAX_TEXT:
        raise Unusable("too_large", f"its cells have more than {MAX_TEXT // 2**20} MiB of text. Split it")
    outline = Outline()
    for cell, text in texts:
        _add(cell, text, language, outline)
    title = metadata.get("title") or metadata.get("name")
    return outline.document(title if isinstance(title, str) else None)


def _text(cell: Mapping[str, Any]) -> str:
    source = cell["source"] if "source" in cell else cell["input"]
    text = source if isinstance(source, str) else "".join(source)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")


def _language(metadata: Mapping[str, Any]) -> str:
    """The language of the code, as a fence names it."""
    kernel = metadata.get("kernelspec") or {}
    name = (metadata.get("language_info") or {}).get("name") or kernel.get("language") or ""
    return name.lower() if isinstance(name, str) and name.isalnum() else ""


def _add(cell: Mapping[str, Any], text: str, language: str, outline: Outline) -> None:
    kind = cell.get("cell_type")
    outputs = cell.get("outputs")
    outline.unused["output of a cell"] += len(outputs) if isinstance(outputs, Sequence) else 0
    outline.unused["picture"] += len(cell.get("attachments") or ())
    if not text.strip():
        return
    if kind == "markdown":
        add_markdown(text, outline)
    elif kind == "heading":
        level = cell.get("level")
        outline.heading(text, level if isinstance(level, int) else 1)
    elif kind == "code":
        outline.block(code(text, language))
    else:
        outline.unused["raw cell"] += 1
