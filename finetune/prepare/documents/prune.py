"""Removes what is not text of a page, and counts it by kind: menus, banners, scripts, hidden parts, form fields.

Hidden text stays where a click shows it: the answer below a question, a panel, the rest of a paragraph. A name such as
"cookie" or "consent" in an id or class decides only together with the looks of a banner: it has a button or says that it
is one, and is short.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from lxml.etree import _Element as Element

from finetune.prepare.documents.elements import all_text, line_of, replace_with_text, tag_of
from finetune.prepare.documents.formulas import write_formula
from finetune.prepare.documents.markup import BLOCKS, HEADINGS, SILENT
from finetune.prepare.documents.outline import one_line

ELEMENTS = {
    "nav": "navigation",
    "footer": "page footer",
    "style": "style sheet",
    "iframe": "embedded page",
    "object": "embedded object",
    "svg": "drawing",
    "canvas": "drawing",
    "map": "image map",
    **dict.fromkeys(("audio", "video"), "audio or video"),
    **dict.fromkeys(("input", "select", "textarea", "datalist"), "form field"),
}
ROLES = {
    **dict.fromkeys(("navigation", "menu", "menubar", "search"), "navigation"),
    **dict.fromkeys(("dialog", "alertdialog"), "dialog"),
    "banner": "page header",
    "contentinfo": "page footer",
}
HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
WORD_OF_NAME = re.compile(r"[a-z]+|[A-Z][a-z]*")
TARGET_OF_CODE = re.compile(r"""['"]#?([\w-]+)['"]""")
EXPANDING = frozenset(("aria-expanded", "aria-controls", "data-bs-target"))  # attributes of a button that shows text
WAS_HIDDEN = "data-was-hidden"  # marks text that a click shows
LONGEST_TITLE = 200  # characters of what is clicked to show hidden text
LONGEST_BANNER = 1000
LONGEST_ADVERTISEMENT = 200
MOSTLY = 0.5  # of a text: then it is links

TOPICS = re.compile(r"cookies?|gdpr|newsletters?|subscribe|paywall|popup|optin")
COMPOUNDS = re.compile(
    r"(?:cookie|gdpr|newsletter|consent)s?(?:banner|bar|notice|popup|modal|overlay|manager|wall|signup)"
)
FORMS = frozenset(
    ("banner", "bar", "notice", "popup", "modal", "overlay", "box", "form", "widget", "signup", "manager", "wall")
)
CONSENT = frozenset(("cookie", "cookies", "gdpr", "privacy", "cmp", "banner", "popup", "overlay", "manager", "modal"))
ADVERTISEMENTS = frozenset(("advert", "adverts", "advertisement", "advertisements"))
LINK_BARS = frozenset(("breadcrumb", "breadcrumbs", "skip", "skiplink", "sitenav", "share", "sharing", "social"))
OVERLAYS = frozenset(
    "modal dialog popup tooltip lightbox overlay toast cookie cookies menu dropdown nav honeypot".split()
)
PANELS = frozenset("answer panel collapse collapsible accordion faq tab details spoiler expandable".split())
TITLES = frozenset("title header heading question toggle trigger accordion summary".split())
CALLOUTS = frozenset(
    "warning note tip caution important info danger callout admonition footnote footnotes endnotes alert hint".split()
)
SIDE_THINGS = frozenset(
    "sidebar related recommended widget promo share sharing social comments newsletter author ads ad".split()
)
NOTES = re.compile(r"(?:doc-)?(?:foot|end)?notes?", re.I)


def prune(root: Element, *, page: bool = False) -> Counter[str]:
    """Remove what is not text of the page; returns how many there were of each kind.

    Args:
        root: changed in place; text that a click shows is no longer marked as hidden, formulas are text.
        page: whether it is a whole page, which has parts beside its subject, rather than a part or a chapter of a book.
    """
    return _Pruning(root, page).run()


def names_of(element: Element) -> set[str]:
    """The words of an element's id and class in lower case."""
    names = f"{element.get('id', '')} {element.get('class', '')}"
    return {word.lower() for word in WORD_OF_NAME.findall(names)} if len(names) > 1 else set()


def is_content(element: Element) -> bool:
    """Whether an element says that it is what the page is about."""
    return tag_of(element) in {"main", "article"} or element.get("role", "").lower() in {"main", "article"}


class _Pruning:
    def __init__(self, root: Element, page: bool) -> None:
        self._root, self._page = root, page
        self._unused: Counter[str] = Counter()
        self._targets = _click_targets(root)
        self._has_content = any(map(is_content, root.iter("*")))

    def run(self) -> Counter[str]:
        open_elements = [self._root]
        while open_elements:
            element = open_elements.pop()
            for child in list(element):
                name = self._reason(child)
                if name:
                    self._unused[name] += 1
                    replace_with_text(child)
                else:
                    self._note_attributes(child)
                    open_elements.append(child)
        return self._unused

    def _note_attributes(self, element: Element) -> None:
        """Count what an element says in attributes, which are not read."""
        tag = tag_of(element)
        self._unused["image"] += tag in {"img", "image"}
        self._unused["link address"] += tag == "a" and not element.get("href", "#").startswith("#")
        self._unused["metadata"] += tag == "meta" and bool(element.get("name") or element.get("property"))
        self._unused["tooltip"] += bool(element.get("title", "").strip())

    def _reason(self, element: Element) -> str:
        """What an element is if it is not text of the page; "" for text."""
        if not isinstance(element.tag, str):
            return "comment" if "comment" in str(element.tag).lower() else "processing instruction"
        tag, role = tag_of(element), element.get("role", "").lower()
        if tag in {"html", "body", "main", "article", "head", "title"}:
            return ""
        if tag == "math" or (tag == "script" and element.get("type", "").startswith("math/tex")):
            replace_with_text(element, write_formula(element) if tag == "math" else f"${one_line(element.text or '')}$")
            return ""
        if tag == "button":
            return "" if self._keep_button(element) else "button"
        if tag in SILENT or tag == "nav":
            return ELEMENTS.get(tag, tag)
        if role in ROLES or tag == "dialog":
            return ROLES.get(role, "dialog")
        if tag == "footer" and not (
            NOTES.fullmatch(role) or names_of(element) & CALLOUTS or _is_inside(element, {"blockquote"})
        ):
            return "page footer"
        if (tag == "aside" or role == "complementary") and not self._keep_aside(element):
            return "aside"
        if self._is_hidden(element) and not self._show(element):
            return "hidden element"
        return self._name_banner(element)

    # --- hidden text --------------------------------------------------------------------------------------------------

    @staticmethod
    def _is_hidden(element: Element) -> bool:
        return (
            "hidden" in element.attrib
            or element.get("aria-hidden", "").lower() == "true"
            or HIDDEN.search(element.get("style", "")) is not None
        )

    def _show(self, element: Element) -> bool:
        """Whether hidden text is shown by a click: then it is no longer marked as hidden."""
        names = names_of(element)
        if names & OVERLAYS or not _is_prose(element):
            return False
        only_spoken = "hidden" not in element.attrib and not HIDDEN.search(element.get("style", ""))
        if only_spoken and tag_of(element) not in BLOCKS:
            return False
        before, after = _beside(element, forward=False), _beside(element, forward=True)
        shown = (
            element.get("id") in self._targets
            or element.get("role", "").lower() == "tabpanel"
            or bool(names & PANELS)
            or (before is not None and (_is_title(before) or WAS_HIDDEN in before.attrib))
            or (after is not None and tag_of(after) in {"a", "button"} and _is_clicked(after))
        )
        if shown:
            for name in ("hidden", "aria-hidden", "style"):
                element.attrib.pop(name, "")
            element.set(WAS_HIDDEN, "")
        return shown

    def _keep_button(self, button: Element) -> bool:
        """Whether a button is the title of text that it shows: then it becomes a paragraph, or part of its heading."""
        if not line_of(button) or _is_inside(button, {"nav", "form"}):
            return False
        titles = HEADINGS.keys() | {"summary", "dt", "legend"}
        if _is_inside(button, titles):
            button.tag = "span"
            return True
        shown = _beside(button, forward=True)
        parent = button.getparent()
        if shown is None and parent is not None and len(parent) == 1:
            shown = _beside(parent, forward=True)
        if shown is None or not _is_prose(shown) or names_of(shown) & OVERLAYS:
            return False
        if EXPANDING.isdisjoint(button.attrib) and not self._is_hidden(shown):
            return False
        button.tag = "p"
        return True

    # --- parts beside the subject -------------------------------------------------------------------------------------

    def _keep_aside(self, element: Element) -> bool:
        names = names_of(element)
        if not self._page or names & CALLOUTS or NOTES.fullmatch(element.get("role", "")):
            return True
        if names & SIDE_THINGS or not _is_prose(element):
            return False
        inside = any(is_content(ancestor) for ancestor in element.iterancestors())
        return inside or not (self._has_content or _has_control(element))

    @staticmethod
    def _name_banner(element: Element) -> str:
        """The kind of a banner or bar of links; "" for text."""
        names = names_of(element)
        if not names or tag_of(element) in HEADINGS:
            return ""
        if names & LINK_BARS:
            return "navigation" if _link_share(element) >= MOSTLY else ""
        topics = {name for name in names if TOPICS.fullmatch(name)}
        says_so = any(COMPOUNDS.fullmatch(name) for name in names) or ("consent" in names and bool(names & CONSENT))
        if says_so or (topics and (names & FORMS - topics or _has_control(element))):
            return "banner" if len(line_of(element)) <= LONGEST_BANNER else ""
        if names & ADVERTISEMENTS and len(line_of(element)) <= LONGEST_ADVERTISEMENT:
            return "" if any(tag_of(inner) in HEADINGS for inner in element.iter()) else "advertisement"
        return ""


def _click_targets(root: Element) -> set[str]:
    """The ids of what something on the page shows when it is clicked."""
    targets: set[str] = set()
    for element in root.iter("*"):
        for name in ("aria-controls", "href", "data-target", "data-bs-target"):
            value = element.get(name, "")
            if value.startswith("#") or name == "aria-controls":
                targets.update(value.replace("#", " ").split())
        targets.update(TARGET_OF_CODE.findall(element.get("onclick", "")))
    return targets


def _is_inside(element: Element, tags: set[str]) -> bool:
    return any(tag_of(ancestor) in tags for ancestor in element.iterancestors())


def _beside(element: Element, *, forward: bool) -> Element | None:
    """The next element beside this one that has text."""
    siblings: Iterator[Element] = element.itersiblings(preceding=not forward)
    return next((each for each in siblings if tag_of(each) and line_of(each)), None)


def _is_title(element: Element) -> bool:
    """Whether an element looks like what is clicked to show the text below it."""
    text = line_of(element)
    if len(text) > LONGEST_TITLE:
        return False
    clicked = max((len(line_of(inner)) for inner in element.iter() if _is_clicked(inner)), default=0)
    return text.endswith("?") or bool(names_of(element) & TITLES) or clicked >= MOSTLY * len(text)


def _is_clicked(element: Element) -> bool:
    tag = tag_of(element)
    return (
        tag in HEADINGS
        or tag in {"button", "summary", "dt", "legend", "label"}
        or "aria-expanded" in element.attrib
        or (tag == "a" and element.get("href", "").startswith("#"))
        or element.get("role", "") in {"button", "tab"}
    )


def _is_prose(element: Element) -> bool:
    """Whether an element has text that is not mostly links."""
    return any(map(str.isalpha, all_text(element))) and _link_share(element) < MOSTLY


def _link_share(element: Element) -> float:
    total = len(line_of(element))
    linked = sum(len(line_of(link)) for link in element.iter() if tag_of(link) == "a")
    return linked / total if total else 0.0


def _has_control(element: Element) -> bool:
    return any(tag_of(inner) in {"button", "input", "select", "form"} for inner in element.iter())
