"""Writes formulas of MathML in one line: as TeX where the page has it, else in plain characters."""

from __future__ import annotations

from lxml.etree import _Element as Element

from finetune.prepare.clean.markup import raise_or_lower
from finetune.prepare.documents.elements import tag_of
from finetune.prepare.documents.outline import one_line


def write_formula(math: Element) -> str:
    """A formula as `$TeX$`, from its annotation or its alternative text, or as `x² = (a + b)/2`."""
    tex = math.get("alttext", "")
    for element in math.iter():
        if tag_of(element) == "annotation" and "tex" in element.get("encoding", "").lower():
            tex = element.text or tex
    return f"${one_line(tex)}$" if tex.strip() else one_line(_linear(math))


def _linear(element: Element) -> str:
    tag = tag_of(element)
    if tag in {"annotation", "annotation-xml", ""}:
        return ""
    parts = [_linear(child) for child in element]
    if tag in {"msup", "msub"} and len(parts) == 2:
        return parts[0] + raise_or_lower(parts[1], raised=tag == "msup")
    if tag == "msubsup" and len(parts) == 3:
        return parts[0] + raise_or_lower(parts[1], raised=False) + raise_or_lower(parts[2], raised=True)
    if tag == "mfrac" and len(parts) == 2:
        return f"{_group(parts[0])}/{_group(parts[1])}"
    if tag == "msqrt":
        return f"√{_group(''.join(parts))}"
    if tag == "mroot" and len(parts) == 2:
        return f"{raise_or_lower(parts[1], raised=True)}√{_group(parts[0])}"
    text = one_line(element.text or "")
    return f" {text} " if tag == "mo" and text in "=+-−<>≤≥≈·×±→" and text else text + "".join(parts)


def _group(text: str) -> str:
    text = text.strip()
    return text if text.isalnum() else f"({text})"
