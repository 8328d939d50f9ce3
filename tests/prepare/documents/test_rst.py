"""reStructuredText, with the directives and roles of Sphinx."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from finetune.errors import Unusable
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section

PAGE = """
Tides
=====

Of the *port* and its **gauges**.

Rise
----

It rises::

    x = 1

- one

  - two

.. note:: Beware
   of ice.

===== =====
Port  Rise
===== =====
Brook 4 m
===== =====
"""


def read(text: str) -> Document:
    return read_document(dedent(text).encode(), "a.rst", "a.rst")


def test_page_is_read_in_order() -> None:
    table = "| Port | Rise |\n| --- | --- |\n| Brook | 4 m |"
    rise = f"It rises:\n\n```\nx = 1\n```\n\n- one\n  - two\n\nNote\n\nBeware of ice.\n\n{table}"
    assert read(PAGE) == Document("Tides", (Section(None, 0, "Of the port and its gauges."), Section("Rise", 2, rise)))


CONTENTS: dict[str, tuple[str, str, dict[str, int]]] = {
    "roles": (
        "See :ref:`the gauge <gauge>`, :py:func:`~port.read` and :doc:`tides`.",
        "See the gauge, `read` and tides.",
        {},
    ),
    "unknown role": ("Press :keys:`Enter`.", "Press Enter.", {}),
    "code in a line": ("Call ``read(*args)``.", "Call `read(*args)`.", {}),
    "link": ("See `the page <https://example.org>`_.", "See the page.", {"link address": 1}),
    "raised": (r"10\ :sup:`3` and H\ :sub:`2`\ O", "10³ and H₂O", {}),
    "formula": ("It is :math:`x^2`.\n\n.. math:: a = b", "It is $x^2$.\n\n$$a = b$$", {}),
    "footnote": ("Ask. [1]_\n\n.. [1] Ann.", "Ask. [1]\n\n[1] Ann.", {}),
    "directive of Sphinx": (".. versionadded:: 1.2\n   The *second* gauge.", "1.2 The second gauge.", {}),
    "function": (
        ".. function:: read(path, *args)\n\n   :param path: the file",
        "read(path, *args)\n\nparam path: the file",
        {},
    ),
    "code": (".. code-block:: python\n   :linenos:\n\n   x = 1\n     y = 2", "```\nx = 1\n  y = 2\n```", {}),
    "replacement": ("The |port|.\n\n.. |port| replace:: harbour", "The harbour.", {}),
    "no replacement": ("The |port|.", "The |port|.", {}),
    "heading without an end": ("Text.\n\n=====\nab\n", "Text.\n\n```\n=====\nab\n```", {}),
}


@pytest.mark.parametrize(("text", "expected", "unused"), CONTENTS.values(), ids=CONTENTS)
def test_contents_are_text(text: str, expected: str, unused: dict[str, int]) -> None:
    document = read(text)
    body = "\n\n".join(section.text for section in document.sections)
    assert (body, document.unused) == (expected, unused)


def test_heading_with_a_short_underline_is_read_once() -> None:
    assert read("Text.\n\nDownload\n~~~~~~\n\nNow.\n\nMore\n~~~~\n\nThen.").sections[1:] == (
        Section("Download", 2, "Now."),
        Section("More", 2, "Then."),
    )


CANARIES = [
    "CANARY", "CANARY\n------\n\ntext", "*CANARY*", "``CANARY``", "`CANARY`", "`CANARY`_", "`CANARY <x>`_", "`a <CANARY>`__",
    "CANARY_", ":role:`CANARY`", "`CANARY`:role:", "|CANARY|", "- CANARY", "1. CANARY", "a\n  CANARY", ":CANARY: x",
    ":x: CANARY",
    "::\n\n  CANARY", "  CANARY", ">>> CANARY", "| CANARY", ".. CANARY", ".. note:: CANARY", ".. other:: CANARY",
    ".. other::\n\n   CANARY", ".. function:: CANARY(x)", ".. code:: x\n\n   CANARY", ".. code-block:: x\n\n   CANARY",
    ".. raw:: html\n\n   CANARY", ".. include:: CANARY", ".. toctree::\n\n   CANARY", ".. image:: CANARY",
    ".. figure:: a.png\n\n   CANARY", ".. table:: CANARY\n\n   == ==\n   a  b\n   == ==\n   c  d\n   == ==",
    ".. list-table::\n\n   * - CANARY\n     - b", ".. csv-table:: a\n\n   CANARY,b", ".. csv-table:: a\n   :file: CANARY",
    ".. list-table::\n\n   * - CANARY\n     - b\n   * - c", "== ==\nCANARY b\n== ==", "+---+\n| CANARY |\n+---+",
    ".. [1] CANARY", ".. [CANARY] x", ".. _CANARY: https://x.org", ".. |CANARY| replace:: x", ".. math:: CANARY",
    ".. topic:: CANARY\n\n   x", ".. sidebar:: CANARY\n\n   x", ".. epigraph:: CANARY", ".. only:: x\n\n   CANARY",
    ".. image:: a.png\n   :alt: CANARY", ".. meta::\n   :description: CANARY", ".. container:: x\n\n   CANARY",
    ".. header:: CANARY", ".. class:: CANARY", ".. role:: CANARY", ".. date:: CANARY", "Term : CANARY\n  x", "[CANARY]_",
]  # fmt: skip


def test_word_in_any_place_comes_out_or_is_counted() -> None:
    lost = []
    for place in CANARIES:
        document = read(f"Before.\n\n{place}\n\nAfter.")
        parts = " ".join(f"{section.heading} {section.text}" for section in document.sections) + (document.title or "")
        if "canary" not in parts.lower() and not document.unused:
            lost.append(place)
    assert lost == []


def test_no_other_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("SECRET", "utf-8")
    names = ("include", "literalinclude", "csv-table", "raw")
    text = "\n\n".join(f".. {name}:: {tmp_path / 'a.txt'}\n   :file: {tmp_path / 'a.txt'}" for name in names)
    assert "SECRET" not in str(read(f"Text.\n\n{text}"))


@pytest.mark.parametrize(("text", "reason"), [("", "no_text"), (".. only a comment", "no_text")])
def test_file_without_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        read(text)
    assert caught.value.reason == reason
