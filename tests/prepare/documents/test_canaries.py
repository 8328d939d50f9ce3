"""Nothing vanishes in silence: a word in any place of a document comes out, or its place is counted."""

from __future__ import annotations

import pytest

from finetune.prepare.documents.readers import read_document
from finetune.records import Document

CANARY = "kestrel"
TEXT = "The weir of Oldbrook was built of oak and stone in the year of the flood, and the town keeps it in order."

PLAIN = [
    "CANARY\n======\n\ntext", "CANARY IN CAPITALS\n\ntext", "- CANARY", "  1) CANARY", "a   b   CANARY", "\tCANARY",
    "*CANARY*", "> CANARY", "CANARY: x\ny: CANARY", "___CANARY___", "=== CANARY ===", "page 7 CANARY", "CANARY\x0c",
    "\x0cCANARY\n\x0c", "x-\nCANARY", "<b>CANARY</b>",
]  # fmt: skip
MARKDOWN = [
    "# CANARY\n\ntext", "## CANARY", "CANARY\n---\n\ntext", "- CANARY", "1. a\n   - CANARY", "- [ ] CANARY", "> CANARY",
    "> - > CANARY", "```CANARY\nx\n```", "```\nCANARY\n```", "~~~\nCANARY", "    CANARY", "`CANARY`", "**CANARY**",
    "_CANARY_", "~~CANARY~~", r"\CANARY", "[CANARY](x)", "[a](CANARY)", "[a](x 'CANARY')", "![CANARY](x)", "![a](CANARY)",
    "[CANARY]", "[CANARY]: /x", "[a]: /x 'CANARY'", "[a][CANARY]", "[CANARY]: b", "<https://CANARY.org>", "<CANARY@x.org>",
    "<CANARY>", "<CANARY", "text[^1]\n\n[^1]: CANARY", "[^CANARY]", "|a|b|\n|-|-|\n|CANARY|c|", "|CANARY|\n|-|\n|b|",
    "<!-- CANARY -->", "a <!-- CANARY --> b", "<b>CANARY</b>", "<div>CANARY</div>", "<div>\n\nCANARY\n\n</div>",
    "<p title='CANARY'>x</p>", "a <b title='CANARY'>b</b>", "<img alt='CANARY'>", "a <img alt='CANARY'>",
    "<script>CANARY</script>", "a <button>CANARY</button>", "<?x CANARY ?>", "<!X CANARY>", "<![CDATA[CANARY]]>", "$CANARY$",
    "Term\n: CANARY", "{: .CANARY}", ":CANARY:", "[[CANARY]]", "==CANARY==", "&CANARY;", "---\n\nCANARY",
    "<CANARY-x>\n\ntext", "<details><summary>CANARY</summary>",
]  # fmt: skip
PAGE = [
    "<h2>CANARY</h2><p>text", "<h2>CANARY</h2>", "<p>CANARY", "CANARY", "<div>CANARY</div>", "<span>CANARY</span>",
    "<ul><li>CANARY</ul>", "<ul>CANARY</ul>", "<ol><li>a<ul><li>CANARY</ul></ol>", "<dl><dt>CANARY</dl>",
    "<dl><dd>CANARY</dl>", "<dl>CANARY<dd>x</dl>", "<pre>CANARY</pre>", "<code>CANARY</code>", "<kbd>CANARY</kbd>",
    "<table><tr><td>CANARY<td>b</table>", "<table><caption>CANARY</caption><tr><td>a<td>b</table>",
    "<table><tr><td>a<td>b</tr>CANARY</table>", "<table><thead><tr><th>CANARY<th>b</thead></table>",
    "<table><tr><td>CANARY</table>", "<blockquote>CANARY</blockquote>", "<q>CANARY</q>", "<a href=x>CANARY</a>",
    "<a href=CANARY>a</a>", "<p title=CANARY>a", "<img alt=CANARY>",
    "<figure><img src=x><figcaption>CANARY</figcaption></figure>", "<aside>CANARY</aside>", "<details>CANARY</details>",
    "<footer>CANARY</footer>", "<details><summary>CANARY</summary>x</details>", "<div hidden>CANARY</div>",
    "<div aria-hidden=true>CANARY</div>", "<nav>CANARY</nav>", "<div style='visibility:hidden'>CANARY</div>",
    "<!-- CANARY -->", "<header>CANARY</header>", "<form>CANARY</form>", "<label>CANARY</label>", "<input value=CANARY>",
    "<input placeholder=CANARY>", "<select><option>CANARY</select>", "<textarea>CANARY</textarea>", "<button>CANARY</button>",
    "<fieldset><legend>CANARY</legend>x</fieldset>", "<script>CANARY</script>", "<style>CANARY</style>",
    "<noscript>CANARY</noscript>", "<template>CANARY</template>", "<iframe>CANARY</iframe>", "<object>CANARY</object>",
    "<svg><title>CANARY</title></svg>", "<canvas>CANARY</canvas>", "<audio>CANARY</audio>", "<math><mi>CANARY</mi></math>",
    "<math alttext=CANARY></math>", "<sup>CANARY</sup>", "<sub>CANARY</sub>", "<del>CANARY</del>",
    "<ruby>a<rt>CANARY</rt></ruby>", "<address>CANARY</address>", "<time>CANARY</time>", "<output>CANARY</output>",
    "<abbr title=CANARY>a</abbr>", "<x-note>CANARY</x-note>", "<dialog>CANARY</dialog>", "<map>CANARY</map>",
    "<datalist><option>CANARY</datalist>", "<meta name=a content=CANARY>", "<center>CANARY</center>", "<font>CANARY</font>",
    "<section class=cookie>CANARY</section>", "<p class=advert>CANARY</p>", "<?php CANARY ?>",
]  # fmt: skip
XML = [
    "<title>CANARY</title><p>x y</p>", "<p>CANARY</p>", "CANARY", "<b>CANARY</b>", "<p>a <b>CANARY</b></p>",
    "<sec><p>a</p>CANARY</sec>", "<id>CANARY</id>", "<list><item>CANARY</item></list>", "<list>CANARY<item>a</item></list>",
    "<list><label>CANARY</label><item>a</item></list>", "<value>1 CANARY</value>",
    "<table><tr><td>CANARY</td><td>b</td></tr></table>", "<table><row><cell>CANARY</cell><cell>b</cell></row></table>",
    "<table>CANARY</table>", "<screen>CANARY</screen>", "<ref-list><ref>CANARY</ref></ref-list>", "<!-- CANARY -->",
    "<![CDATA[CANARY]]>", "<p><![CDATA[<b>CANARY</b>]]></p>", "<p a='a b CANARY'>x</p>", "<sup>CANARY</sup>",
    "<p>x<sub>CANARY</sub></p>", "<fn><p>CANARY</p></fn>", "<math><mi>CANARY</mi></math>", "<date>1 CANARY</date>",
    "<item><description>CANARY</description><encoded>x</encoded></item>", "<caption>CANARY</caption>",
    "<a><b><c>CANARY</c></b></a>", "<script>CANARY</script>",
]  # fmt: skip
PLACES = {
    "a.txt": (f"{TEXT}\n\nPLACE\n\n{TEXT}", PLAIN),
    "a.md": (f"{TEXT}\n\nPLACE\n\n{TEXT}", MARKDOWN),
    "a.xml": (f"<doc><p>{TEXT}</p>PLACE<p>{TEXT}</p></doc>", XML),
    "a.html": (f"<p>{TEXT}</p>PLACE<p>{TEXT}</p>", PAGE),
    "page.html": (f"<html><body><main><h1>Weir</h1><p>{TEXT * 4}</p>PLACE<p>{TEXT}</p></main></body></html>", PAGE),
    "old.html": (
        f"<html><head><title>Weir</title></head><body><p>{TEXT * 4}</p>PLACE<p>{TEXT}</p></body></html>",
        PAGE,
    ),
}


def read(name: str, place: str) -> Document:
    text, _ = PLACES[name]
    return read_document(text.replace("PLACE", place.replace("CANARY", CANARY)).encode(), name, name)


@pytest.mark.parametrize("name", PLACES)
def test_word_in_any_place_comes_out_or_is_counted(name: str) -> None:
    usual = read(name, "").unused
    lost = []
    for place in PLACES[name][1]:
        document = read(name, place)
        parts = [document.title or "", *(f"{section.heading} {section.text}" for section in document.sections)]
        if CANARY not in " ".join(parts).casefold() and document.unused == usual:
            lost.append(place)
    assert lost == []
