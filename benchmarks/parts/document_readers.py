"""Which library reads documents best? Missing texts, boilerplate kept, words lost and added, seconds.

    python benchmarks/parts/document_readers.py FOLDER

FOLDER has an expected.json: a list of {"path", "readable", "contains": [...], "absent": [...]}; white space is collapsed
before comparing. The table says which libraries are not installed. To compare all:

    pip install justext readability-lxml html2text resiliparse pypdf pdfplumber python-docx markitdown

Words lost and added are relative to slmtune's reader: they show where two readers differ, not which of them is right;
`missing` and `kept` show that.
"""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.prepare.documents.readers import read_document

Reader = Callable[[bytes], str]
ROUNDS = 3


def slmtune(suffix: str) -> Reader:
    """slmtune's reader for a format."""

    def read(data: bytes) -> str:
        document = read_document(data, f"document{suffix}", "document")
        parts = [f"{section.heading or ''}\n{section.text}" for section in document.sections]
        return "\n".join([document.title or "", *parts])

    return read


def _markup(data: bytes) -> str:
    from finetune.prepare.documents.html import decode_markup

    return decode_markup(data, "document")


def trafilatura(data: bytes) -> str:
    """Main content, favouring recall, as Markdown."""
    import trafilatura as library

    return library.extract(data, output_format="markdown", include_comments=False, favor_recall=True) or ""


def justext(data: bytes) -> str:
    """All paragraphs that are not boilerplate by its English stop list."""
    import justext as library

    paragraphs = library.justext(data, library.get_stoplist("English"))
    return "\n".join(paragraph.text for paragraph in paragraphs if not paragraph.is_boilerplate)


def readability(data: bytes) -> str:
    """The main part as HTML, then as text."""
    from html2text import html2text
    from readability import Document

    return str(html2text(Document(_markup(data)).summary()))


def resiliparse(data: bytes) -> str:
    """The main content only."""
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(_markup(data), main_content=True))


def pypdf(data: bytes) -> str:
    """All pages."""
    from pypdf import PdfReader

    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(data)).pages)


def pdfplumber(data: bytes) -> str:
    """All pages."""
    import pdfplumber as library

    with library.open(io.BytesIO(data)) as file:
        return "\n".join(page.extract_text() or "" for page in file.pages)


def pypdfium2(data: bytes) -> str:
    """All pages, without slmtune's treatment of order, tables, headings and running heads."""
    import pypdfium2 as library

    file = library.PdfDocument(data)
    return "\n".join(file[number].get_textpage().get_text_bounded() for number in range(len(file)))


def python_docx(data: bytes) -> str:
    """Paragraphs and the cells of tables, in order."""
    from docx import Document

    parts = []
    for part in Document(io.BytesIO(data)).iter_inner_content():
        parts += [part.text] if hasattr(part, "text") else [cell.text for row in part.rows for cell in row.cells]
    return "\n".join(parts)


def mammoth(data: bytes) -> str:
    """Raw text, without slmtune's treatment of its HTML."""
    import mammoth as library

    return str(library.extract_raw_text(io.BytesIO(data)).value)


def markitdown(data: bytes) -> str:
    """Markdown."""
    try:
        from markitdown import MarkItDown
    except ImportError:
        from markitdown_no_magika import MarkItDown
    return str(MarkItDown().convert_stream(io.BytesIO(data), file_extension=".docx").text_content)


READERS: dict[str, list[Reader]] = {
    "html": [trafilatura, justext, readability, resiliparse],
    "pdf": [pypdfium2, pypdf, pdfplumber],
    "docx": [mammoth, python_docx, markitdown],
}
SUFFIXES = {".htm": "html", ".html": "html", ".pdf": "pdf", ".docx": "docx"}


@dataclass
class Result:
    """The figures of a reader over all files of a format."""

    files: int = 0
    missing: int = 0
    kept: int = 0
    lost: int = 0
    added: int = 0
    seconds: float = 0.0


def measure(reader: Reader, files: list[tuple[bytes, dict[str, Any], str]]) -> Result:
    """Read each file a few times and compare; `files` are its bytes, the expected texts and slmtune's text."""
    result = Result()
    for data, expected, ours in files:
        text = reader(data)  # imports, caches
        start = time.perf_counter()
        for _ in range(ROUNDS):
            text = reader(data)
        result.seconds += (time.perf_counter() - start) / ROUNDS
        flat = " ".join(text.replace("\\", "").split())
        result.files += 1
        result.missing += sum(" ".join(part.split()) not in flat for part in expected["contains"])
        result.kept += sum(part in flat for part in expected["absent"])
        mine, theirs = (Counter(re.findall(r"\w+", part)) for part in (ours, text))
        result.lost += (mine - theirs).total()
        result.added += (theirs - mine).total()
    return result


def table(folder: Path) -> Iterator[str]:
    """The lines of the comparison table."""
    expected = [entry for entry in json.loads((folder / "expected.json").read_text("utf-8")) if entry["readable"]]
    yield f"{'format':7} {'reader':13} {'files':>5} {'missing':>7} {'kept':>5} {'lost':>6} {'added':>6} {'ms/file':>8}"
    for kind, readers in READERS.items():
        own = slmtune(f".{kind}")
        files = []
        for entry in expected:
            if SUFFIXES.get(Path(entry["path"]).suffix) == kind:
                data = (folder / entry["path"]).read_bytes()
                files.append((data, entry, own(data)))
        if not files:
            continue
        for name, reader in [("slmtune", own), *((reader.__name__, reader) for reader in readers)]:
            try:
                result = measure(reader, files)
            except ImportError:
                yield f"{kind:7} {name:13} not installed"
                continue
            yield (
                f"{kind:7} {name:13} {result.files:5} {result.missing:7} {result.kept:5} {result.lost:6} {result.added:6} "
                f"{1000 * result.seconds / result.files:8.1f}"
            )


def main() -> None:
    """Compare the readers on the folder named on the command line."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "expected.json").is_file():
        sys.exit("usage: python benchmarks/parts/document_readers.py FOLDER, where FOLDER has an expected.json")
    for line in table(Path(sys.argv[1])):
        print(line, flush=True)


if __name__ == "__main__":
    main()
