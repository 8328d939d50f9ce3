"""What people have added to a page of a PDF: the values of form fields, typed notes and comments."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

Box = tuple[float, float, float, float]  # left, bottom, right, top in points, from the lower left corner

CHECKED, UNCHECKED = "☒", "☐"
TEXTS = frozenset((raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX))
BOXES = frozenset((raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON))
UNSEEN = raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW
PASSWORD = 1 << 13  # flag of a text field (ISO 32000-1, table 228)
NO_TEXT = frozenset((raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP))


@dataclass(frozen=True, slots=True)
class Field:
    """A value on a page and its box; of a box to tick, `text` is ☒ or ☐."""

    text: str
    box: Box
    is_box: bool = False


def fields_of(page: pdfium.PdfPage, form: pdfium.PdfFormEnv | None) -> tuple[list[Field], Counter[str]]:
    """The values of a page from left to right, and the number of other fields and comments by name."""
    fields: list[Field] = []
    unused: Counter[str] = Counter()
    for number in range(raw.FPDFPage_GetAnnotCount(page)):
        note = raw.FPDFPage_GetAnnot(page, number)
        kind = raw.FPDFAnnot_GetSubtype(note)
        if kind == raw.FPDF_ANNOT_WIDGET and form is not None:
            field = _field(note, form)
            fields += [field] if field else []
            unused["form field"] += field is None
        elif kind == raw.FPDF_ANNOT_FREETEXT and (text := _contents(note)):
            fields.append(Field(text, _box(note)))
        elif kind not in NO_TEXT and _contents(note):
            unused["comment"] += 1
        raw.FPDFPage_CloseAnnot(note)
    return sorted(fields, key=lambda field: field.box[0]), +unused


def _field(note: Any, form: pdfium.PdfFormEnv) -> Field | None:
    """The value of a field; None for buttons, signatures, empty, hidden and secret ones."""
    kind = raw.FPDFAnnot_GetFormFieldType(form, note)
    if raw.FPDFAnnot_GetFlags(note) & UNSEEN:
        return None
    if kind in BOXES:
        return Field(CHECKED if raw.FPDFAnnot_IsChecked(form, note) else UNCHECKED, _box(note), is_box=True)
    if kind not in TEXTS or raw.FPDFAnnot_GetFormFieldFlags(form, note) & PASSWORD:
        return None
    if kind == raw.FPDF_FORMFIELD_LISTBOX:
        places = range(raw.FPDFAnnot_GetOptionCount(form, note))
        chosen = (place for place in places if raw.FPDFAnnot_IsOptionSelected(form, note, place))
        text = ", ".join(_text(raw.FPDFAnnot_GetOptionLabel, form, note, place) for place in chosen)
    else:
        text = _text(raw.FPDFAnnot_GetFormFieldValue, form, note)
    return Field(text, _box(note)) if text else None


def _contents(note: Any) -> str:
    return _text(raw.FPDFAnnot_GetStringValue, note, b"Contents")


def _text(function: Callable[..., int], *arguments: object) -> str:
    """The result of a function of PDFium that writes UTF-16 to a buffer, in one line."""
    size = function(*arguments, None, 0)
    buffer = ctypes.create_string_buffer(size)
    function(*arguments, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), size)
    return " ".join(buffer.raw.decode("utf-16-le", "replace").replace("\0", " ").split())


def _box(note: Any) -> Box:
    rectangle = raw.FS_RECTF()
    raw.FPDFAnnot_GetRect(note, rectangle)
    across, down = sorted((rectangle.left, rectangle.right)), sorted((rectangle.bottom, rectangle.top))
    return across[0], down[0], across[1], down[1]


def is_inside(inner: Box, outer: Box) -> bool:
    """Whether the middle of a box is in another box."""
    across, down = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= across <= outer[2] and outer[1] <= down <= outer[3]
