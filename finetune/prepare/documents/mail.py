"""E-mail messages (.eml, and those of an .mbox): the subject as title, then what this message says.

With the standard library. Quotations of earlier messages and signatures are left out: the same words would come again with
each reply, and the message that they are from usually is in the mailbox, too.
"""

from __future__ import annotations

import email
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message

from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.documents import html, text
from finetune.prepare.documents.elements import all_text, replace_with_text
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

NAMED_HEADERS = ("From", "To", "Cc", "Date")
ID = re.compile(r"<[^<>\s]+>")
PREFIX = re.compile(r"\s*(?:(?:re|fwd?|aw|wg|sv|vs|tr|rv|antw|odp|res|enc)(?:\[\d+\])?\s*:\s*)+", re.I)
LINE_END = re.compile(r"\r\n?")
FLOWED = re.compile(r"(?<!^--) \n(?!-- \n)", re.M)  # RFC 3676: the paragraph goes on, except at a signature
SHORT = 100  # letters: a plain form as short as that may only say that there is another
# How mail programs begin an earlier message that they do not quote line by line.
EARLIER = re.compile(
    r"^\s*(?:-{3,}\s*(?:Original Message|Urspr(?:ü|ue)ngliche Nachricht|Message d['’]origine|Mensaje original|"
    r"Messaggio originale|Mensagem original|Oorspronkelijk bericht)\s*-{3,}|_{10,}\s*\n\s*(?:From|Von|De|Da|Van):\s.*)$",
    re.I | re.M,
)
INTRODUCTION = re.compile(
    r"(?:wrote|schrieb[^:\n]*|a écrit|escribió|ha scritto|escreveu|schreef[^:\n]*|skrev[^:\n]*|napisał\(?a?\)?|"
    r"написала?|пишет)\s*:\s*\Z",
    re.I,
)
SIGNATURE = re.compile(r"^-- ?\n(?=(?:.*\n?){0,12}\Z)", re.M)
PGP = re.compile(r"^-----BEGIN PGP SIGNATURE-----\n.*?^-----END PGP SIGNATURE-----\n?", re.M | re.S)
PGP_HEAD = re.compile(r"^-----BEGIN PGP SIGNED MESSAGE-----\n(?:\w+: .*\n)*\n", re.M)
QUOTES = frozenset(("gmail_quote", "yahoo_quoted", "protonmail_quote", "moz-cite-prefix"))
SIGNATURES = frozenset(("gmail_signature", "moz-signature", "protonmail_signature_block"))
OUTLOOK = frozenset(("divrplyfwdmsg", "appendonsend"))  # what follows these elements is the earlier message
FORWARDED = re.compile(r"\s*-{5,}\s*Forwarded", re.I)


def read(data: bytes, shown: str) -> Document:
    """The text of a message; other headers than the subject, quotations, signatures and attachments are counted.

    Raises:
        Unusable: it is no message, or has no text.
    """
    message = email.message_from_bytes(data)
    if not message.keys():
        raise Unusable("damaged_mail", "it is not an e-mail message: it has no headers. Save it again, or rename it")
    unused: Counter[str] = Counter()
    for name in message:
        known = next((each for each in NAMED_HEADERS if each.lower() == name.lower()), "")
        unused[f"header {known}" if known else "other header"] += name.lower() != "subject"
    documents = list(_documents(message, shown, unused))
    if not documents:
        raise Unusable("no_text", "the message has no text. Skip it with --on-error skip")
    for document in documents:
        unused.update(document.unused)
    title = documents[0].title if not _subject(message) else _subject(message)
    sections = tuple(section for document in documents for section in document.sections)
    return Document(title, sections, +unused, group=_thread(message))


def _thread(message: Message) -> str | None:
    """A digest of the id of the message that a thread begins with, as far as the headers tell; ids name hosts."""
    first = ID.search(" ".join(str(message.get(name, "")) for name in ("References", "In-Reply-To", "Message-ID")))
    return f"thread-{hashlib.sha256(first[0].encode('utf-8', 'replace')).hexdigest()[:16]}" if first else None


def _documents(message: Message, shown: str, unused: Counter[str]) -> Iterator[Document]:
    for part in _bodies(message, unused):
        is_page = part.get_content_type() == "text/html"
        body = LINE_END.sub("\n", _decode(part, shown))
        try:
            yield _read_page(body, unused) if is_page else _read_plain(part, body, shown, unused)
        except Unusable as problem:
            if problem.reason != "no_text":
                raise


def _bodies(part: Message, unused: Counter[str]) -> list[Message]:
    """The parts that are the text of a message; the others are counted."""
    kind = part.get_content_type()
    inner = part.get_payload()
    if kind == "message/rfc822":
        unused["attached message"] += 1
    elif isinstance(inner, list):
        alternatives = [_bodies(each, unused) for each in inner if isinstance(each, Message)]
        if kind != "multipart/alternative":
            return [each for bodies in alternatives for each in bodies]
        filled = [bodies for bodies in alternatives if bodies]
        plain = [bodies for bodies in filled if bodies[0].get_content_type() == "text/plain" and _is_whole(bodies[0])]
        return (plain or filled[::-1] or [[]])[0]
    elif (
        kind not in {"text/plain", "text/html"} or part.get_content_disposition() == "attachment" or part.get_filename()
    ):
        unused["picture" if kind.startswith("image/") else "attachment"] += 1
    else:
        return [part]
    return []


def _is_whole(part: Message) -> bool:
    return len(part.get_payload(decode=True) or b"") > SHORT


def _decode(part: Message, shown: str) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    try:
        return data.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeDecodeError):  # unknown or wrong
        return decode(data, shown)


def _subject(message: Message) -> str:
    """The subject, without "Re:" and the like."""
    raw = message.get("Subject", "")
    try:
        subject = str(make_header(decode_header(raw)))
    except (MessageError, LookupError, ValueError):
        subject = str(raw)
    return " ".join(PREFIX.sub("", subject, count=1).split())


# --- plain text -------------------------------------------------------------------------------------------------------


def _read_plain(part: Message, body: str, shown: str, unused: Counter[str]) -> Document:
    if part.get_param("format") == "flowed":
        body = FLOWED.sub("" if part.get_param("delsp") == "yes" else " ", body)
    own = _own_text(body, unused)
    return text.read((own if own.strip() else body).encode("utf-8", "replace"), shown)


def _own_text(body: str, unused: Counter[str]) -> str:
    """What the sender of a message wrote."""
    body, signatures = PGP.subn("", PGP_HEAD.sub("", body))
    earlier = EARLIER.search(body)
    if earlier:
        unused["earlier message"] += 1
        body = body[: earlier.start()]
    signature = SIGNATURE.search(body)
    if signature:
        body = body[: signature.start()]
    unused["signature"] += signatures + (signature is not None)
    own: list[str] = []
    for line in body.split("\n"):
        if not line.startswith(">"):
            own.append(line)
            continue
        unused["quoted line"] += 1
        _drop_introduction(own, unused)
    return "\n".join(own)


def _drop_introduction(lines: list[str], unused: Counter[str]) -> None:
    """Drop "On Monday, Ann wrote:", which may take two lines."""
    while lines and not lines[-1].strip():
        lines.pop()
    if lines and INTRODUCTION.search(lines[-1]):
        alone = (
            len(lines) == 1
            or not lines[-2].strip()
            or bool(re.match(r"\s*(?:On|Am|Le|El|Il|Em|Op|Den|W)\b", lines[-1]))
        )
        count = 1 if alone else 2
        unused["quoted line"] += count
        del lines[-count:]
    lines.append("")


# --- pages ------------------------------------------------------------------------------------------------------------


def _read_page(body: str, unused: Counter[str]) -> Document:
    root = html.parse(body)
    counts: Counter[str] = Counter()
    for element in list(root.iter("*")):
        if _names(element) & OUTLOOK:
            counts["earlier message"] += 1
            _remove_from(element)
        elif _is_quote(element):
            counts["earlier message"] += 1
            replace_with_text(element)
        elif _names(element) & SIGNATURES:
            counts["signature"] += 1
            replace_with_text(element)
    try:
        document = html.page_outline(root, whole=False).document()
    except Unusable:  # there is nothing else
        return html.page_outline(html.parse(body), whole=False).document()
    unused.update(counts)
    return document


def _names(element: Element) -> set[str]:
    return set(f"{element.get('id', '')} {element.get('class', '')}".lower().split())


def _is_quote(element: Element) -> bool:
    if element.tag == "blockquote" and element.get("type") == "cite":
        return True
    return not _names(element).isdisjoint(QUOTES) and not FORWARDED.match(all_text(element))


def _remove_from(element: Element) -> None:
    """Remove an element and all that follows it in its parent."""
    for following in list(element.itersiblings()):
        replace_with_text(following)
    replace_with_text(element)
