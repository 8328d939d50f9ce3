"""OpenDocument texts (.odt), such as those of LibreOffice: headings, paragraphs, lists and tables in reading order.

With lxml: odfpy (Apache-2.0 or GPL) gives the elements that lxml gives as well, and nothing else. They are named like those of
HTML, so that they are read like those of a page.
"""

from __future__ import annotations

from collections import Counter

from lxml import etree
from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.clean.markup import raise_or_lower
from finetune.prepare.documents.elements import all_text, attribute, line_of, replace_with_text, tag_of, whole_number
from finetune.prepare.documents.formulas import write_formula
from finetune.prepare.documents.markup import outline_of
from finetune.prepare.documents.markup_tables import MAX_COLUMNS
from finetune.prepare.documents.odt_numbers import label_items
from finetune.prepare.formats.zip_package import ZipPackage, damage_error, open_package
from finetune.records import Document

TAGS = {
    "list": "ul",
    "list-item": "li",
    "list-header": "li",
    "table-row": "tr",
    "table-cell": "td",
    "table-header-rows": "thead",
    "line-break": "br",
    "text-box": "div",
}
LEFT_OUT = {  # elements whose text is not that of the document
    "annotation": "comment",
    "tracked-changes": "tracked deletion",
    "table-of-content": "table of contents",
    "alphabetical-index": "index",
    "illustration-index": "index",
    "table-index": "index",
    "ruby-text": "reading of a character",
    "placeholder": "form field",
    "forms": "form field",
    "hidden-text": "hidden text",
    "hidden-paragraph": "hidden text",
    "image": "picture",
    "covered-table-cell": "",
    "number": "",  # for programs that do not count
    "shapes": "drawing",
}
MARGINS = {"header": "header", "header-first": "header", "header-left": "header"}
MARGINS |= {name.replace("header", "footer"): "footer" for name in MARGINS}
TITLES = frozenset(("Title", "Titel", "Titre"))
MAX_BLANKS = 100  # of a run of blanks that is written as a number


def read(data: bytes, shown: str) -> Document:
    """The text of a document; its title is the paragraph with the style Title, else its only heading of level 1.

    Raises:
        Unusable: it is damaged, is protected by a password, or has no text.
    """
    unused: Counter[str] = Counter()
    with open_package(data, "odt") as parts:
        manifest = parts.part("META-INF/manifest.xml") or b""
        if b"encryption-data" in manifest:
            raise Unusable("encrypted_odt", "it has a password. Save it without one")
        root = parts.root("content.xml")
        styles = [root, *([parts.root("styles.xml")] if "styles.xml" in parts.names else [])]
        body = root.find("{*}body/{*}text")
        if body is None:
            raise damage_error("odt")
        for margin in styles[-1].iter("{*}master-page"):
            for child in margin:
                if tag_of(child) in MARGINS:
                    unused[MARGINS[tag_of(child)]] += bool(all_text(child).strip())
        _write_formulas(body, parts, unused)
        _Text(styles, unused).simplify(body)
    return outline_of(body, unused).document()


class _Text:
    """Turns the elements of a text into those of HTML."""

    def __init__(self, styles: list[Element], unused: Counter[str]) -> None:
        self._unused, self._roots = unused, styles
        self._styles = {attribute(each, "name"): each for root in styles for each in root.iter("{*}style")}
        self._notes: list[Element] = []

    def simplify(self, body: Element) -> None:
        """Change the text in place; footnotes are put at its end."""
        self._remove_rest(body)
        label_items(body, self._roots)
        lowered = any(self._is_title(each) for each in body.iter("{*}p"))
        for element in list(body.iter()):
            tag = tag_of(element)
            if tag == "p" and self._is_title(element):
                element.tag = "h1"
            elif tag == "h":
                element.tag = f"h{min(whole_number(element, 'outline-level', 1) + lowered, 6)}"
            elif tag == "span":
                self._raise_or_lower(element)
            elif tag == "note":
                self._lift_note(element)
            elif tag == "s":
                replace_with_text(element, " " * min(whole_number(element, "c", 1), MAX_BLANKS))
            elif tag == "tab":
                replace_with_text(element, "\t")
            elif tag in TAGS:
                self._rename(element, TAGS[tag])
        for note in self._notes:
            body.append(note)

    def _remove_rest(self, body: Element) -> None:
        for element in list(body.iter()):
            tag = tag_of(element)
            if "xmlns:svg" in str(element.tag):  # the name and the description of a drawing
                self._unused["alternative text"] += 1
                replace_with_text(element)
            elif tag in LEFT_OUT:
                regions = sum(1 for _ in element.iter("{*}deletion")) if tag == "tracked-changes" else 1
                self._unused[LEFT_OUT[tag]] += regions if LEFT_OUT[tag] else 0
                replace_with_text(element)
            elif tag in {"p", "h", "span"} and self._property(element, "display") == "none":
                self._unused["hidden text"] += bool(all_text(element).strip())
                replace_with_text(element)

    def _is_title(self, paragraph: Element) -> bool:
        name = attribute(paragraph, "style-name")
        style = self._styles.get(name)
        return name in TITLES or (style is not None and attribute(style, "parent-style-name") in TITLES)

    def _property(self, element: Element, name: str) -> str:
        """A property of the text of an element's style."""
        style = self._styles.get(attribute(element, "style-name"))
        properties = None if style is None else style.find("{*}text-properties")
        return "" if properties is None else attribute(properties, name)

    def _raise_or_lower(self, span: Element) -> None:
        place = self._property(span, "text-position").partition(" ")[0]
        if place == "super" or (place.endswith("%") and place.strip("-0%")) or place == "sub":
            replace_with_text(span, raise_or_lower(all_text(span), raised=place != "sub" and not place.startswith("-")))

    def _lift_note(self, note: Element) -> None:
        mark = "".join(all_text(each) for each in note.iterfind("{*}note-citation")).strip()
        for body in note.iterfind("{*}note-body"):
            end = etree.Element("p")
            end.text = f"[{mark}] {line_of(body)}"
            self._notes.append(end)
        replace_with_text(note, f"[{mark}]")

    @staticmethod
    def _rename(element: Element, tag: str) -> None:
        if tag == "td":
            columns = whole_number(element, "number-columns-spanned", 1) * whole_number(
                element, "number-columns-repeated", 1
            )
            element.set("colspan", str(min(columns, MAX_COLUMNS)))
            element.set("rowspan", str(min(whole_number(element, "number-rows-spanned", 1), MAX_COLUMNS)))
        element.tag = tag


def _write_formulas(body: Element, parts: ZipPackage, unused: Counter[str]) -> None:
    """Write the formulas among the embedded objects, and count the others."""
    for embedded in list(body.iter("{*}object")):
        for picture in list(embedded.itersiblings("{*}image")):  # what others show in its place
            replace_with_text(picture)
        name = f"{attribute(embedded, 'href').removeprefix('./').rstrip('/')}/content.xml"
        formula = parts.root(name) if name in parts.names else None
        if formula is not None and tag_of(formula) == "math":
            replace_with_text(embedded, write_formula(formula))
        else:
            unused["embedded object"] += 1
            replace_with_text(embedded)
