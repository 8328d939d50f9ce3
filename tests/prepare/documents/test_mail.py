"""E-mail messages and mailboxes."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from finetune.errors import InputError, Unusable
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section
from tests.prepare.conftest import Preparer

TEXT = "The pilot boat leaves at six and takes the new buoys to the northern channel, where the old ones drifted."


def message(plain: str = "", page: str = "", subject: str = "Buoys", **headers: str) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = subject
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    if plain:
        mail.set_content(plain)
    if page and plain:
        mail.add_alternative(page, subtype="html")
    elif page:
        mail.set_content(page, subtype="html")
    return mail


def read(mail: EmailMessage | bytes) -> Document:
    data = mail if isinstance(mail, bytes) else mail.as_bytes()
    return read_document(data, "a.eml", "a.eml")


def counts(document: Document) -> dict[str, int]:
    """What was not used, headers aside."""
    return {name: count for name, count in document.unused.items() if "header" not in name}


def test_subject_is_the_title_and_other_headers_are_counted() -> None:
    mail = message(
        TEXT, subject="AW: Re: Büoys of the port", From="Ann <a@example.org>", To="b@example.org", X_Spam="no"
    )
    document = read(mail)
    assert (document.title, document.sections) == ("Büoys of the port", (Section(None, 0, TEXT),))
    assert document.unused["header From"] == document.unused["header To"] == 1
    assert document.unused["other header"] > 0


FORWARDED = "See below.\n\n---------- Forwarded message ---------\n\nAnn goes."
LONG_INTRODUCTION = "On Monday, 3 June, Ann Brook\n<a@example.org> wrote:"
SIGNED = (
    f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{TEXT}\n-----BEGIN PGP SIGNATURE-----\n\nabc=\n"
    "-----END PGP SIGNATURE-----\n"
)
PLAIN = {
    "reply above": (f"{TEXT}\n\nOn Monday, 3 June, Ann wrote:\n> Who goes?\n> And when?\n", TEXT, {"quoted line": 3}),
    "introduction of two lines": (f"{TEXT}\n\n{LONG_INTRODUCTION}\n\n> Who?\n", TEXT, {"quoted line": 3}),
    "reply between": ("> Who goes?\n\nAnn does.\n\n> When?\n\nAt six.", "Ann does.\n\nAt six.", {"quoted line": 2}),
    "German": (f"{TEXT}\n\nAm 3. Juni schrieb Ann:\n> Wer?\n", TEXT, {"quoted line": 2}),
    "Outlook": (f"{TEXT}\n\n-----Original Message-----\nFrom: Ann\n\nWho goes?\n", TEXT, {"earlier message": 1}),
    "signature": (f"{TEXT}\n\n-- \nAnn Brook\nHarbour office\n", TEXT, {"signature": 1}),
    "forwarded": (FORWARDED, FORWARDED, {}),
    "nothing but a quotation": ("> Ann goes at six.", "> Ann goes at six.", {"quoted line": 1}),
    "sentence that introduces": ("As the log wrote:\n\nAll is well.", "As the log wrote:\n\nAll is well.", {}),
    "signed": (SIGNED, TEXT, {"signature": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "expected", "unused"), PLAIN.values(), ids=PLAIN)
def test_quotations_and_signatures_are_counted(body: str, expected: str, unused: dict[str, int]) -> None:
    document = read(message(body))
    text = "\n\n".join(section.text for section in document.sections)
    assert text == expected
    assert counts(document) == unused


PAGES = {
    "quotation": (f"<p>{TEXT}</p><blockquote type=cite>Who?</blockquote>", {"earlier message": 1}),
    "Gmail": (f"<p>{TEXT}</p><div class='gmail_quote'>On Monday Ann wrote: <p>Who?</p></div>", {"earlier message": 1}),
    "Outlook": (f"<p>{TEXT}</p><hr><div id='divRplyFwdMsg'>From: Ann</div><p>Who?</p>", {"earlier message": 1}),
    "signature": (f"<p>{TEXT}</p><div class='gmail_signature'>Ann</div>", {"signature": 1}),
}


@pytest.mark.parametrize(("page", "unused"), PAGES.values(), ids=PAGES)
def test_quotations_and_signatures_of_pages_are_counted(page: str, unused: dict[str, int]) -> None:
    document = read(message(page=page))
    assert document.sections == (Section(None, 0, TEXT),)
    assert counts(document) == unused


def test_one_of_two_forms_is_read_and_attachments_are_counted() -> None:
    mail = message(TEXT, f"<p>{TEXT} <b>In bold</b></p>")
    mail.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="a.pdf")
    mail.add_attachment("notes", filename="a.txt")
    mail.add_attachment(b"x", maintype="image", subtype="png", filename="a.png")
    mail.add_attachment(message("CANARY"))
    document = read(mail)
    assert document.sections == (Section(None, 0, TEXT),)
    assert counts(document) == {"attachment": 2, "picture": 1, "attached message": 1}
    assert read(message("See the page.", f"<p>{TEXT}</p>")).sections == (Section(None, 0, TEXT),)


def test_lines_that_flow_are_joined() -> None:
    head = b"Subject: Buoys\nContent-Type: text/plain; format=flowed\n\n"
    assert read(head + b"The boat \nleaves.\n\nAt six.\n").sections[0].text == "The boat leaves.\n\nAt six."


def test_encoding_is_the_declared_one_or_the_likely_one() -> None:
    body = "Die Lotsen fahren täglich um fünf über die Förde zurück.".encode("cp1252")
    for charset in (b"windows-1252", b"utf-8", b"nonsense"):
        head = b"Subject: Lotsen\nContent-Type: text/plain; charset=" + charset + b"\n\n"
        assert read(head + body).sections[0].text == body.decode("cp1252")


@pytest.mark.parametrize(
    "data", [b"no headers\n\ntext", b"Subject: a\n\n", b"Subject: a\nContent-Type: image/png\n\nx"]
)
def test_message_without_text_is_refused(data: bytes) -> None:
    with pytest.raises(Unusable) as caught:
        read(data)
    assert caught.value.reason in {"damaged_mail", "no_text"}


def test_mailbox_is_an_archive_of_messages(prepared: Preparer, tmp_path: Path) -> None:
    bodies = [f"{TEXT}\n\n>From here it is {n} miles.\n" for n in range(3, 6)]
    mails = [message(body, subject=f"Buoys {n}").as_bytes() for n, body in enumerate(bodies)]
    path = tmp_path / "port.mbox"
    path.write_bytes(b"".join(b"From ann@example.org Mon Jun  3 10:00:00 2024\n" + mail + b"\n" for mail in mails))
    corpus = prepared(path, split_ratio="1/0/0", dedup=False)
    assert sorted(corpus.texts)[0].endswith("From here it is 3 miles.")
    assert sorted(row.id.split("#")[0] for row in corpus.rows)[0] == "port/port.mbox/000001.eml"
    assert len(corpus.rows) == 3


def test_messages_of_a_thread_share_a_split(prepared: Preparer, tmp_path: Path) -> None:
    path = tmp_path / "list.mbox"
    with path.open("wb") as file:
        for number in range(40):
            ids = [f"<{number}.{place}@example.org>" for place in range(3)]
            for place, own in enumerate(ids):
                text = f"Berth {number} has room for {place} of the {number + place} ships that wait on the outer road."
                answered = {"References": " ".join(ids[:place]), "In_Reply_To": ids[place - 1]} if place else {}
                mail = message(text, subject=f"Berth {number}", Message_ID=own, **answered)
                file.write(b"From a@example.org Mon Jun  3 10:00:00 2024\n" + mail.as_bytes() + b"\n")
    made = prepared(path, near_duplicates=1.0)
    assert len(made.rows) == 120
    assert len({row.group for row in made.rows}) == 40
    assert made.result.splits["test"] % 3 == made.result.splits["validation"] % 3 == 0
    assert not any("example" in str(row.group) for row in made.rows)


def test_file_that_is_no_mailbox_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    (tmp_path / "a.mbox").write_text("text\n\nFrom here on\n", "utf-8")
    with pytest.raises(InputError, match="is not a mailbox"):
        prepared(tmp_path / "a.mbox")

    (tmp_path / "a.md").write_text("# Mill\n\nThe mill is open in May.\n", "utf-8")
    corpus = prepared(tmp_path, on_error="skip", split_ratio="1/0/0")
    assert len(corpus.rows) == 1
    assert corpus.result.dropped == {"unreadable": 1}
