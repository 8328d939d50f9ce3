"""Jupyter notebooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune.errors import Unusable
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section


def notebook(*cells: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"nbformat": 4, "cells": cells, "metadata": {"kernelspec": {"language": "R"}}} | fields).encode()


def cell(kind: str, *lines: str, **fields: Any) -> dict[str, Any]:
    return {"cell_type": kind, "metadata": {}, "source": lines} | fields


def read(data: bytes) -> Document:
    return read_document(data, "a.ipynb", "a.ipynb")


def test_texts_are_markdown_and_code_is_fenced() -> None:
    cells = [
        cell("markdown", "# Tides\n", "\n", "Read **both** gauges."),
        cell("code", "gauges <- read('a.csv')\n", "mean(gauges)", outputs=[{"output_type": "stream", "text": "4.2"}]),
        cell("markdown", "## Result"),
        cell("markdown", "The mean is low.", attachments={"a.png": {}}),
        cell("code", ""),
        cell("raw", "\\newpage"),
    ]
    assert read(notebook(*cells)) == Document(
        "Tides",
        (
            Section(None, 0, "Read both gauges.\n\n```r\ngauges <- read('a.csv')\nmean(gauges)\n```"),
            Section("Result", 2, "The mean is low."),
        ),
        {"output of a cell": 1, "picture": 1, "raw cell": 1},
    )


def test_notebook_of_the_old_format_is_read() -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Tides"},
        {"cell_type": "code", "input": ["x = 1"], "outputs": []},
    ]
    data = json.dumps({"nbformat": 3, "metadata": {"name": "Gauges"}, "worksheets": [{"cells": cells}]})
    assert read(data.encode()) == Document("Gauges", (Section("Tides", 2, "```\nx = 1\n```"),))


@pytest.mark.parametrize("kind", ["markdown", "code", "raw"])
def test_canary_in_a_cell_is_text_or_counted(kind: str) -> None:
    document = read(notebook(cell("markdown", "Before."), cell(kind, "CANARY"), cell("markdown", "After.")))
    assert ("CANARY" in document.sections[0].text) != bool(document.unused)


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"cells": [1]}', b'{"cells": [{"source": 3}]}', b"[" * 100_000])
def test_damaged_notebook_is_refused(data: bytes) -> None:
    with pytest.raises(Unusable) as caught:
        read(data)
    assert caught.value.reason in {"damaged_notebook", "too_deep"}
