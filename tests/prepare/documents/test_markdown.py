"""Running text of Markdown: what is no mark of Markdown stays as written."""

from __future__ import annotations

import time

import pytest

from finetune.prepare.documents.readers import read_document
from finetune.records import Document

AS_WRITTEN = {
    "code": "Call `__enter__`, `row[i][j]`, `run[name](event)`, `g(**opts)`, `Set<Integer>`, `3**4` and ``a ` **b**``.",
    "code in prose": "The method __enter__ of rows[i][j] and hooks[name](event) takes (*args, **opts) and (**more).",
    "powers and names": "3**4 is not 3**5; LOG__LEVEL__FILE and a_b__c_d__e are names.",
    "comparisons": "If a <b and c> 5, wait; 4 * 5 * 6.",
    "placeholders": "Dear <First Name>, send <file> to <your-address> by <date>; press <Enter> or write <title>.",
    "placeholder on a line of its own": "Write this:\n\n<your-key>\n\nThen go on.",
    "generic types": "A List<String> and a Map<String, Integer> of Vec<u8>.",
    "footnotes": "The fee is nine crowns.[^1] Pupils pay less.[^pupil]\n\n[^1]: Twelve since May.\n[^pupil]: Six.",
    "footnote of one word": "It was built early.[^1]\n\n[^1]: 1911.",
    "class of signs": "The pattern [^0-9] excludes digits.",
    "transcript": "[Host]: Were you there?\n\n[Guest]: Yes.\n\n[Host]: When?\n\n[Guest]: 10:30",
    "no link": "See [the list](on page nine) and [Brook](1998).",
    "escaped signs": r"Write \*\*bold\*\* and \[name\](address) and \<b\>.",
    "formulas": "As $x[i](t)$ and\n$$\na**b**[c](d)\n$$\ncost $5, not $6.",
    "code in a list": "- Run\n\n  ```sh\n  * **a** [b](c)\n  ```\n\n- Stop",
    "code in a quotation": "> ~~~\n> x = y[i](**z)\n> ~~~",
    "unclosed comment in a sentence": "The arrow <!-- points left.",
    "unclosed code": "A single ` sign and 2**8.",
    "Chinese over two lines": "古い灯台は\n港の岩",
}


def read(text: str) -> Document:
    return read_document(text.encode(), "a.md", "a.md")


def body(document: Document) -> str:
    return "\n\n".join(filter(None, (part for each in document.sections for part in (each.heading, each.text))))


@pytest.mark.parametrize("text", AS_WRITTEN.values(), ids=AS_WRITTEN)
def test_text_stays_as_written(text: str) -> None:
    document = read(text)
    assert (body(document), document.unused) == (text, {})


@pytest.mark.parametrize(
    ("text", "expected", "unused"),
    [
        ("A **bold** and __very bold__ word, **`code`**.", "A bold and very bold word, `code`.", {}),
        ("太字は**これ**です。", "太字はこれです。", {}),
        ("See [the `run` page](run.md \"Run\") now.", "See the `run` page now.", {"link address": 1}),
        ("[one][a], [b][], [C]\n\n[a]: https://x.org\n[B]: ./b.md 'B'\n[c]: #d", "one, b, C", {"link address": 3}),
        ("As in [1] and [A][1].\n\n[1]: https://x.org", "As in [1] and A.", {"link address": 1}),
        ("- x [a]\n\n  [a]: https://example.org/a", "- x a", {"link address": 1}),
        ("![A pump](pump.png) and ![](x.png)", "A pump and", {"image": 2}),
        ("[//]: # (a remark)\n\nText.", "Text.", {"link address": 1}),
        ("H<sub>2</sub>O, 10<sup>3</sup>, <kbd>F1</kbd>,<br><a href='x'>page</a>", "H₂O, 10³, F1,\npage", {"link address": 1}),
        ("Text <!-- remark --> goes on.", "Text  goes on.", {"comment": 1}),
        ("<!-- remark -->\n\nText.", "Text.", {"comment": 1}),
        ("<details>\n<summary>Why?</summary>\nBecause.\n</details>", "Why?\n\nBecause.", {}),
        ("<script>\nrun()\n</script>\n\nText <img src=x.png>", "Text", {"script": 1, "image": 1}),
        ("## __init__ and **more**\n\nText.", "__init__ and more\n\nText.", {}),
        ("## *Care*\n\nText.", "Care\n\nText.", {}),
        ("Text.\n\n## Empty", "Text.\n\nEmpty", {"heading without text": 1}),
        ("---\ntitle: Mill\ndate: 2031\n---\nText.", "Text.", {"field of the front matter": 1}),
    ],
)  # fmt: skip
def test_marks_go_and_are_counted(text: str, expected: str, unused: dict[str, int]) -> None:
    document = read(text)
    assert (body(document), document.unused) == (expected, unused)


@pytest.mark.parametrize(
    "piece",
    [
        "<button>",
        "[a](b 'c",
        "[a](",
        "`",
        "**a",
        " __a_b",
        "<a b=c ",
        "[a]: x.yz\n",
        "<sup>1",
        "\\`",
        "[a][b",
        "$a",
        "$$",
    ],
)
def test_hostile_running_text_is_read_in_time(piece: str) -> None:
    start = time.perf_counter()
    read("[b]: x.org\n\nText " + piece * (300_000 // len(piece)))
    assert time.perf_counter() - start < 20
