"""Pages: what a click shows is text, what is only named like a banner is text, and what is left out is counted."""

from __future__ import annotations

import pytest

from finetune.prepare.documents.readers import read_document
from finetune.records import Document

PARAGRAPH = "The weir of Oldbrook was built of oak and stone in the year of the flood, and the town keeps it in order. "


def read(inner: str, *, main: bool = True) -> Document:
    """A page with some text around `inner`."""
    text = f"<h1>The weir</h1><p>{PARAGRAPH * 3}</p>{inner}<h2>Later</h2><p>{PARAGRAPH * 3}</p>"
    text = f"<main>{text}</main>" if main else text
    page = f"<!DOCTYPE html><html><head><title>The weir</title></head><body>{text}</body></html>"
    return read_document(page.encode(), "a.html", "a.html")


def whole(document: Document) -> str:
    return "\n".join(part for section in document.sections for part in (section.heading or "", section.text))


KEPT = {
    "hidden answer below a heading": "<h3>Is it open?</h3><div style='display: none'><p>{}</p></div>",
    "short hidden answer below a heading": "<h3>Is it open?</h3><div hidden>It is. {}</div>",
    "hidden answer below a button": "<div><button aria-expanded=false>Is it open?</button><div hidden>{}</div></div>",
    "button itself": "<div><button aria-expanded=false>May {}</button><div hidden>Dogs may swim in the pool.</div></div>",
    "button in a heading": "<h3><button aria-controls=a>May {}</button></h3><div id=a aria-hidden=true>They may.</div>",
    "hidden answer beside a wrapped button": "<div><button>Is it open?</button></div><div hidden><p>{}</p></div>",
    "hidden answer below a question": "<div class=row>Is it open?</div><div style='display:none'>{}</div>",
    "hidden paragraphs": "<h3>Is it open?</h3><p hidden>First it was.</p><p hidden>{}</p>",
    "hidden definition": "<dl><dt>Weir</dt><dd style='display:none'>{}</dd></dl>",
    "hidden panel of a tab": "<ul role=tablist><li><a href='#t2'>Two</a></li></ul><div id=t2 hidden><p>{}</p></div>",
    "hidden rest of a paragraph": "<p>First<span id=more style='display:none'> and {}</span></p>"
    "<button onclick=\"show('more')\">More</button>",
    "hidden rest above a link": "<p>First.</p><div class=rest style='display:none'>{}</div><a href='#'>Read more</a>",
    "book that pops up": "<div class=popup-book>{}</div>",
    "title that is a link within the page": "<div class=panel-title><a href='#c1'>How {}?</a></div><div id=c1>Like so.</div>",
    "details": "<details><summary>Why?</summary>{}</details>",
    "informed consent": "<section id=informed-consent><h2>Consent</h2><p>{}</p></section>",
    "consent form": "<div class=consent-form><p>{}</p></div>",
    "cookies that are baked": "<section class='recipe cookies'><h2>Cookies</h2><p>Bake {}</p></section>",
    "breadcrumbs that are eaten": "<p class=breadcrumbs>Fry {}</p>",
    "how to subscribe": f"<section id=subscribe><h2>How to subscribe</h2><p>{{}} {PARAGRAPH * 10}</p></section>",
    "advertising law": "<section class=advertisement-law><h2>The law</h2><p>{}</p></section>",
    "shareholders": "<div class=shareholders-options><p>{}</p></div>",
    "warning aside": "<aside class=warning><p>{}</p></aside>",
    "plain aside": "<aside><p>Never swim where {}</p></aside>",
    "footnote aside": "<aside role=doc-footnote>{}</aside>",
    "quotation": "<blockquote><p>Said so.</p><footer>{}</footer></blockquote>",
    "form around text": "<form><p>{}</p></form>",
}


@pytest.mark.parametrize("main", [True, False], ids=["main", "body"])
@pytest.mark.parametrize("inner", KEPT.values(), ids=KEPT)
def test_text_that_a_reader_can_see_is_kept(inner: str, main: bool) -> None:
    assert "a heron on the sluice" in whole(read(inner.replace("{}", "a heron on the sluice stood still"), main=main))


GONE = {
    "cookie banner": ("<div id=cookie-banner>We use {} <button>Accept</button></div>", "banner"),
    "cookie banner of one word": ("<div class=cookieBanner>We use {}</div>", "banner"),
    "consent manager": ("<div class=consent-manager>We and {}</div>", "banner"),
    "newsletter form": ("<div class=newsletter>{}<input name=mail></div>", "banner"),
    "breadcrumbs": ("<div class=breadcrumbs><a href=/>Home {}</a> / Weir</div>", "navigation"),
    "share buttons": ("<div class=share-buttons><a href=//x.org>Share {}</a></div>", "navigation"),
    "menu that is hidden": ("<button>Menu</button><ul hidden><li><a href=/x>{}</a></li></ul>", "hidden element"),
    "dialog that is hidden": ("<button>Delete</button><div hidden class=modal>Really? {}</div>", "hidden element"),
    "hidden text": ("<div style='display:none'>{}</div>", "hidden element"),
    "side bar": ("<aside class=sidebar>{}</aside>", "aside"),
    "links aside": ("<aside><a href=/1>More of {}</a></aside>", "aside"),
    "footer": ("<footer>{}</footer>", "page footer"),
    "navigation": ("<nav>{}</nav>", "navigation"),
    "banner by role": ("<div role=banner>{}</div>", "page header"),
    "dialog": ("<dialog>{}</dialog>", "dialog"),
    "script": ("<script>a = '{}'</script>", "script"),
    "style sheet": ("<style>.a {{ content: '{}' }}</style>", "style sheet"),
    "no script": ("<noscript>{}</noscript>", "noscript"),
    "template": ("<template>{}</template>", "template"),
    "comment": ("<!-- {} -->", "comment"),
    "button": ("<button>Send {}</button>", "button"),
    "choice": ("<select><option>{}</option></select>", "form field"),
    "entry": ("<input value='{}'>", "form field"),
    "text area": ("<textarea>{}</textarea>", "form field"),
    "drawing": ("<svg><text>{}</text></svg>", "drawing"),
    "video": ("<video>{}</video>", "audio or video"),
    "embedded page": ("<iframe src=x>{}</iframe>", "embedded page"),
    "image": ("<p>See <img alt='{}'></p>", "image"),
    "tooltip": ("<p title='{}'>See.</p>", "tooltip"),
    "address": ("<p>See <a href='https://{}'>there</a> and some more text.</p>", "link address"),
    "metadata": ("<meta name=description content='{}'>", "metadata"),
}


@pytest.mark.parametrize(("inner", "kind"), GONE.values(), ids=GONE)
def test_what_is_no_text_is_counted(inner: str, kind: str) -> None:
    document = read(inner.replace("{}", "a heron on the sluice"))
    assert "heron" not in whole(document)
    assert document.unused[kind] == 1


def test_blocks_outside_the_main_text_are_counted() -> None:
    menu = "<div class=menu><ul><li><a href=/>A heron</a></ul></div>"
    page = f"<html><body>{menu}<article><p>{PARAGRAPH * 5}</article></body></html>"
    document = read_document(page.encode(), "a.html", "a.html")
    assert "heron" not in whole(document)
    assert document.unused == {"block outside the main text": 1, "link address": 1}


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("<math alttext='E=mc^2'><mi>E</mi></math>", "$E=mc^2$"),
        (
            "<math><semantics><mi>E</mi><annotation encoding='application/x-tex'>E_0</annotation></semantics></math>",
            "$E_0$",
        ),
        ("<math><mi>T</mi><mo>=</mo><msqrt><mfrac><mi>l</mi><mi>g</mi></mfrac></msqrt></math>", "T = √(l/g)"),
        ("<math><msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup></math>", "x₁²"),
        ("<script type='math/tex'>a_1</script>", "$a_1$"),
    ],
)
def test_formulas_are_written_in_a_line(formula: str, expected: str) -> None:
    assert f"Here {expected} is" in whole(read(f"<p>Here {formula} is what the miller of Oldbrook found at last.</p>"))
