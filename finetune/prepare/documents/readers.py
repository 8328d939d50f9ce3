"""Reads documents (files other than tables of rows) into a title and sections of Markdown.

There is one module per format, imported when a file of that format is read. Each names its library and the reason for
it, with figures from benchmarks/parts/document_readers.py.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import PurePosixPath

from finetune.errors import Unusable
from finetune.prepare.formats.encoding import detect_encoding
from finetune.prepare.formats.files import UTF8
from finetune.records import Document

MAX_BYTES = 100 * 2**20  # of one document: the largest scanned books are that big, text never is

DOCUMENTS: Mapping[str, str] = {  # the module that reads files with the extension
    **dict.fromkeys((".txt", ".text"), "text"),
    **dict.fromkeys((".md", ".markdown"), "markdown"),
    **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
    **dict.fromkeys((".srt", ".vtt"), "subtitles"),
    **{f".{name}": name for name in ("rst", "pdf", "docx", "epub", "xml", "rtf", "odt", "pptx")},
    ".eml": "mail",
    ".ipynb": "notebook",
}
# Plain texts, in which HTML entities are decoded when they are cleaned; the parsers of all other documents do so.
TEXTS = frozenset({".txt", ".text", ".md", ".markdown", ".srt", ".vtt", ".rst"})
MARKUP = frozenset({".html", ".htm", ".xhtml", ".xml"})


def read_document(data: bytes, name: str, shown: str, encoding: str | None = None) -> Document:
    """The title and sections of a document; `name` determines the format, `shown` is its name in messages.

    `encoding` is that of text files; None: as declared or detected.

    Raises:
        Unusable: it has no text or cannot be read; `reason` says why (`no_text`, `damaged_pdf`, `scanned_pdf`, ...).
        InputError: it should be text but is binary.
    """
    if len(data) > MAX_BYTES:
        raise Unusable("too_large", f"the document has more than {MAX_BYTES // 2**20} MiB. Split it into smaller files")
    suffix = PurePosixPath(name).suffix.lower()
    if encoding and suffix in TEXTS | MARKUP:
        data = BOM_UTF8 + data.decode(encoding, "replace").removeprefix("\ufeff").encode("utf-8", "replace")
    elif suffix in TEXTS:
        encoding = detect_encoding(data, shown)
    try:
        document: Document = import_module(f"finetune.prepare.documents.{DOCUMENTS[suffix]}").read(data, shown)
    except RecursionError:
        raise Unusable("too_deep", "its parts are nested too deeply. Save it again in a simpler form") from None
    except MemoryError:
        raise Unusable("too_large", "it does not fit in memory. Split it into smaller files") from None
    lost = sum(section.text.count("\ufffd") for section in document.sections)
    unused = {**document.unused, "undecodable letter": lost} if lost else document.unused
    return replace(document, unused=unused, encoding=None if encoding in UTF8 else encoding)
