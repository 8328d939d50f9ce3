"""What all readers of XML and HTML ask of an element, whatever its namespace."""

from __future__ import annotations

import re

from lxml.etree import _Element as Element

from finetune.prepare.documents.outline import one_line

NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def tag_of(element: Element) -> str:
    """The name of an element in lower case, without its namespace; "" for comments and processing instructions."""
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def attribute(element: Element, name: str, default: str = "") -> str:
    """The attribute of that name in any namespace."""
    return next((str(value) for key, value in element.items() if str(key).rpartition("}")[2] == name), default)


def whole_number(element: Element, name: str, default: int) -> int:
    """The number in an attribute, cut after six digits; `default` if there is none."""
    value = attribute(element, name)[:6]
    return int(value) if value.isascii() and value.isdigit() else default


def all_text(element: Element) -> str:
    """The text below an element, unchanged."""
    return "".join(str(piece) for piece in element.itertext())


def line_of(element: Element) -> str:
    """The text below an element in one line."""
    return one_line(all_text(element))


def replace_with_text(element: Element, text: str = "") -> None:
    """Replace an element with text, and keep the text that follows it; one without a parent stays."""
    parent, before = element.getparent(), element.getprevious()
    if parent is None:
        return
    text += element.tail or ""
    if before is not None:
        before.tail = NOT_IN_XML.sub(" ", (before.tail or "") + text)
    else:
        parent.text = NOT_IN_XML.sub(" ", (parent.text or "") + text)
    parent.remove(element)
