"""Prepares the XML of Word documents for mammoth: puts in plain sight what it passes over, and counts what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lxml import etree
from lxml.etree import _Element as Element

from finetune.prepare.documents.docx_numbers import Numbering
from finetune.prepare.documents.elements import attribute, tag_of
from finetune.prepare.documents.omml import latex

TEXTS = frozenset(("document", "footnotes", "endnotes"))  # parts that mammoth turns into text
MARGINS = {"hdr": "header", "ftr": "footer"}
DRAWINGS = {"picture": "picture", "chart": "chart", "chartex": "chart", "diagram": "diagram"}
WRAPPERS = frozenset(("fldsimple", "bdo", "dir", "rubybase"))  # mammoth passes over what is inside
UNREAD = {
    "delText": "tracked deletion",
    "altChunk": "embedded document",
    "subDoc": "embedded document",
    "object": "embedded object",
    "rt": "reading of a character",
}
LABEL_END = "\ufdd0"  # no character: it ends what stands before an item
OFF = frozenset(("0", "false", "off"))


def simplify(root: Element, hidden_styles: frozenset[str], numbering: Numbering, unused: Counter[str]) -> None:
    """Change a part of a document so that mammoth reads all of its text; count the rest.

    What stands before the item of a list becomes the beginning of its text, up to LABEL_END.
    """
    kind = tag_of(root)
    if kind == "comments":
        unused["comment"] += sum(1 for _ in root.iter("{*}comment"))
    elif kind in MARGINS:
        unused[MARGINS[kind]] += bool(_text_of(root).strip())
    elif kind in TEXTS:
        _choose_text_boxes(root)
        for tag, name in UNREAD.items():
            unused[name] += sum(1 for _ in root.iter(f"{{*}}{tag}"))
        unused.update(_drawings(root))
        unused["hidden text"] += _remove_hidden(root, hidden_styles)
        unused["form field"] += _fill_fields(root)
        _write_equations(root)
        _unwrap(root)
        _add_labels(root, numbering)
        _lift_text_boxes(root)


def hidden_styles(styles: Element) -> frozenset[str]:
    """The ids of the styles of hidden text."""
    return frozenset(
        attribute(style, "styleId")
        for style in styles.iter("{*}style")
        if any(map(_is_on, style.iterfind("{*}rPr/{*}vanish")))
    )


def bare_styles(styles: Element) -> None:
    """Keep only the names and numbering of the styles.

    mammoth builds a tree of all styles with the standard library; for Word's usual styles, this takes ten times as long
    as for the text of a leaflet.
    """
    for element in list(styles):
        if tag_of(element) != "style":
            styles.remove(element)
        for child in list(element):
            if tag_of(child) not in {"name", "ppr"}:
                element.remove(child)


def _choose_text_boxes(root: Element) -> None:
    """Of two forms of one drawing, keep the new one if it has text, since the text must be read once."""
    for choices in list(root.iter("{*}AlternateContent")):
        if next(choices.iter("{*}txbxContent"), None) is not None:
            for fallback in list(choices.iterchildren("{*}Fallback"))[: len(list(choices.iterchildren("{*}Choice")))]:
                choices.remove(fallback)


def _lift_text_boxes(root: Element) -> None:
    """Put the paragraphs of each text box behind the paragraph that it is anchored in."""
    for box in list(root.iter("{*}txbxContent")):
        anchor = next(box.iterancestors("{*}p"), None)
        if anchor is not None and len(box):
            for block in reversed(box):
                anchor.addnext(block)


def _drawings(root: Element) -> Iterator[str]:
    for graphic in root.iter("{*}graphicData"):
        name = graphic.get("uri", "").rpartition("/")[2].lower()
        if name in DRAWINGS:
            yield DRAWINGS[name]
    for _ in root.iter("{*}imagedata"):
        yield "picture"
    for _ in root.iter("{*}textpath"):
        yield "WordArt"


def _remove_hidden(root: Element, styles: frozenset[str]) -> int:
    """Remove the runs that are hidden, themselves or by their style; the number of those with text."""
    count = 0
    for run in list(root.iter("{*}r")):
        paragraph = next(run.iterancestors("{*}p"), run)
        named = [*run.iterfind("{*}rPr/{*}rStyle"), *paragraph.iterfind("{*}pPr/{*}pStyle")]
        own = list(run.iterfind("{*}rPr/{*}vanish"))
        if any(map(_is_on, own)) or (not own and any(attribute(each, "val") in styles for each in named)):
            count += bool(_text_of(run).strip())
            _replace(run, [])
    return count


def _is_on(switch: Element) -> bool:
    return attribute(switch, "val") not in OFF


def _fill_fields(root: Element) -> int:
    """Write the choice of each drop-down field as text, and remove prompts such as "Click here"; the number of these."""
    for field in root.iter("{*}ddList"):
        entries = [attribute(entry, "val") for entry in field.iterchildren("{*}listEntry")]
        chosen = "".join(attribute(result, "val") for result in field.iterchildren("{*}result"))
        place = int(chosen) if chosen.isdecimal() else 0
        run = next(field.iterancestors("{*}r"), None)
        if run is not None and place < len(entries):
            _add_text(run, entries[place])
    count = 0
    for prompt in list(root.iter("{*}showingPlcHdr")):
        control = next(prompt.iterancestors("{*}sdt"), None)
        if control is not None and _is_on(prompt):
            count += 1
            for text in list(control.iter("{*}t")):
                text.text = ""
    return count


def _write_equations(root: Element) -> None:
    for equation in list(root.iter("{*}oMath")):
        parent = equation.getparent()
        if parent is None:
            continue
        run = etree.Element(_word_tag(root, "r"))
        _add_text(run, latex(equation))
        if tag_of(parent) == "omathpara":  # equations on lines of their own
            parent.addprevious(run)
            _add_text(run, " ")
        else:
            _replace(equation, [run])
    for display in list(root.iter("{*}oMathPara")):
        _replace(display, [])


def _unwrap(root: Element) -> None:
    for element in list(root.iter()):
        if tag_of(element) == "ruby":
            bases = [text for base in element.iterchildren("{*}rubyBase") for text in list(base.iter("{*}t"))]
            _replace(element, bases)
        elif tag_of(element) in WRAPPERS:
            _replace(element, [child for child in element if not tag_of(child).endswith("pr")])
        elif tag_of(element) == "cr":
            element.tag = _word_tag(root, "br")


def _add_labels(root: Element, numbering: Numbering) -> None:
    for paragraph in root.iter("{*}p"):
        label = numbering.label(paragraph)
        if label and _text_of(paragraph).strip():
            run = etree.Element(_word_tag(paragraph, "r"))
            _add_text(run, label + LABEL_END)
            paragraph.insert(paragraph.find("{*}pPr") is not None, run)


def _add_text(run: Element, text: str) -> None:
    element = etree.SubElement(run, _word_tag(run, "t"))
    element.text = text
    element.set("{http://www.w3.org/XML/1998/namespace}space", "preserve")


def _word_tag(element: Element, name: str) -> str:
    """A name in the namespace of an element of Word, which differs in strict documents."""
    return f"{element.tag.rpartition('}')[0]}}}{name}"


def _replace(element: Element, others: list[Element]) -> None:
    parent = element.getparent()
    if parent is not None:
        place = parent.index(element)
        parent[place : place + 1] = others


def _text_of(element: Element) -> str:
    return "".join(text.text or "" for text in element.iter("{*}t"))
