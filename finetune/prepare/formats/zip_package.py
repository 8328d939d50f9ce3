"""Opens files that are zip archives of XML (.docx, .epub, .odt, .pptx, .xlsx), within limits."""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.formats.containers import ZIP_ENCRYPTED
from finetune.prepare.formats.safe_xml import parse_xml

MAX_PARTS = 10_000  # a book of one file per page has fewer
MAX_UNPACKED = 512 * 2**20  # bytes of all parts together, pictures included
MAX_RATIO = 250  # unpacked to packed, as for other archives: XML is about 10
MAX_PART = 64 * 2**20  # bytes of one part that is read: XML, of which the tree takes about ten times as much
ENTITIES = tuple("<!ENTITY".encode(encoding) for encoding in ("ascii", "utf-16-le", "utf-16-be"))
OLE2 = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # how Office wraps a file with a password, and .doc, .ppt and .xls files begin
)


class Target(NamedTuple):
    """The part that a relation of an Office file leads to, and the last word of the relation's type, such as "slide"."""

    kind: str
    name: str


class ZipPackage:
    """The parts of a document in a zip archive."""

    def __init__(self, archive: zipfile.ZipFile, kind: str) -> None:
        self._archive, self._kind = archive, kind
        self.names = frozenset(archive.namelist())

    def part(self, name: str) -> bytes | None:
        """The bytes of a part; None if there is no such part.

        Raises:
            Unusable: it is damaged or too large.
        """
        if name not in self.names:
            return None
        with _name_damage(self._kind), self._archive.open(name) as stream:
            data = stream.read(MAX_PART + 1)
        if len(data) > MAX_PART:
            raise Unusable("too_large", f"a part of the {self._kind} has more than {MAX_PART // 2**20} MiB. Split it")
        return data

    def root(self, name: str) -> Element:
        """The tree of a part.

        Raises:
            Unusable: it is missing, damaged or too large, or declares entities.
        """
        data = self.part(name)
        if data is None:
            raise damage_error(self._kind)
        refuse_entities(data)
        root = parse_xml(data)
        if root is None:
            raise damage_error(self._kind)
        return root

    def targets(self, name: str) -> dict[str, Target]:
        """The relations of a part of an Office file within the package, by their ids; `name` is "" for the package."""
        folder, base = posixpath.split(name)
        relations = posixpath.join(folder, "_rels", f"{base}.rels")
        if relations not in self.names:
            return {}
        return {
            each.get("Id", ""): Target(
                each.get("Type", "").rpartition("/")[2],
                posixpath.normpath(posixpath.join("/", folder, each.get("Target", ""))).lstrip("/"),
            )
            for each in self.root(relations).iterfind("{*}Relationship")
            if each.get("TargetMode") != "External"
        }

    def main_part(self) -> str:
        """The name of the part that an Office file begins with, such as "word/document.xml".

        Raises:
            Unusable: there is none.
        """
        for target in self.targets("").values():
            if target.kind == "officeDocument" and target.name in self.names:
                return target.name
        raise damage_error(self._kind)


@contextmanager
def open_package(data: bytes, kind: str) -> Iterator[ZipPackage]:
    """Open and check the archive.

    Raises:
        Unusable: it is damaged or encrypted, or unpacks to more than any real document.
    """
    if data.startswith(OLE2):
        raise Unusable(
            f"encrypted_{kind}", f"it has a password or an older format. Save it as .{kind} without a password"
        )
    with _name_damage(kind):
        archive = zipfile.ZipFile(io.BytesIO(data))
    with archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if len(entries) > MAX_PARTS or total > MAX_UNPACKED or total > MAX_RATIO * len(data):
            raise Unusable("bomb", f"the {kind} unpacks to {total:,} bytes in {len(entries):,} parts. Do not trust it")
        if any(entry.flag_bits & ZIP_ENCRYPTED for entry in entries):
            raise Unusable(f"encrypted_{kind}", f"the {kind} needs a password. Save it without one")
        yield ZipPackage(archive, kind)


def damage_error(kind: str) -> Unusable:
    """The error for a file that is not what its extension says."""
    return Unusable(f"damaged_{kind}", f"it is not in the format {kind}, or is damaged. Save or copy it again")


def refuse_entities(data: bytes) -> None:
    """Refuse declarations of entities ("billion laughs"), which these formats do not need.

    Raises:
        Unusable: there is one.
    """
    if any(mark in data for mark in ENTITIES):
        raise Unusable("xml_entities", "it declares XML entities, which no document needs. Do not trust it")


@contextmanager
def _name_damage(kind: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError):
        raise damage_error(kind) from None
