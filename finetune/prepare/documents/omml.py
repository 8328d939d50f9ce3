"""Writes the equations of Word documents (Office Math) as LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from lxml.etree import _Element as Element

from finetune.prepare.documents.elements import attribute, tag_of

ESCAPED = str.maketrans({"{": r"\{", "}": r"\}", "%": r"\%", "$": r"\$", "#": r"\#", "&": r"\&"})
ACCENTS = {"\u0302": "hat", "\u0303": "tilde", "\u0304": "bar", "\u0305": "bar", "\u0307": "dot", "\u0308": "ddot"}
ACCENTS |= {"\u030c": "check", "\u20d7": "vec", "¯": "bar", "^": "hat", "~": "tilde", "→": "vec"}
NAMES = frozenset("arccos arcsin arctan cos cosh cot det exp lim ln log max min sin sinh tan tanh".split())


def latex(equation: Element) -> str:
    """An equation between dollar signs, "" if it is empty; letters and signs stay in Unicode."""
    text = " ".join(_children(equation).split())
    return f"${text}$" if text else ""


def _children(element: Element) -> str:
    return "".join(map(_write, element))


def _write(element: Element) -> str:
    tag = tag_of(element)
    if tag == "t":
        return (element.text or "").translate(ESCAPED)
    if tag.endswith("pr") or tag == "del":  # properties; a tracked deletion
        return ""
    return WRITERS.get(tag, _children)(element)


def _part(element: Element, name: str) -> str:
    """The contents of the first child of that name."""
    return next(_parts(element, name), "")


def _parts(element: Element, name: str) -> Iterator[str]:
    return (_children(child).strip() for child in element if tag_of(child) == name)


def _property(element: Element, name: str, default: str) -> str:
    """The value of a property, `default` if it is not set."""
    for child in element:
        if tag_of(child).endswith("pr"):
            for item in child:
                if tag_of(item) == name:
                    return attribute(item, "val")
    return default


def _base(element: Element) -> str:
    base = _part(element, "e")
    return base if len(base) == 1 or base.endswith((")", "}", "]")) else f"{{{base}}}"


def _script(sign: str, text: str) -> str:
    if not text:
        return ""
    return f"{sign}{text}" if len(text) == 1 else f"{sign}{{{text}}}"


def _fraction(element: Element) -> str:
    above, below = _part(element, "num"), _part(element, "den")
    if _property(element, "type", "bar") == "lin":
        return f"{above}/{below}"
    return rf"\frac{{{above}}}{{{below}}}"


def _root(element: Element) -> str:
    degree = _part(element, "deg")
    return rf"\sqrt{f'[{degree}]' if degree else ''}{{{_part(element, 'e')}}}"


def _scripts(element: Element) -> str:
    return _base(element) + _script("_", _part(element, "sub")) + _script("^", _part(element, "sup"))


def _scripts_before(element: Element) -> str:
    return "{}" + _script("_", _part(element, "sub")) + _script("^", _part(element, "sup")) + _part(element, "e")


def _large_operator(element: Element) -> str:
    sign = _property(element, "chr", "∫")
    return f"{sign}{_script('_', _part(element, 'sub'))}{_script('^', _part(element, 'sup'))} {_part(element, 'e')}"


def _brackets(element: Element) -> str:
    inner = _property(element, "sepchr", "|").join(_parts(element, "e"))
    left, right = _property(element, "begchr", "("), _property(element, "endchr", ")")
    return f"{left.translate(ESCAPED)}{inner}{right.translate(ESCAPED)}"


def _function(element: Element) -> str:
    return f"{_name(_part(element, 'fname'))} {_part(element, 'e')}"


def _name(text: str) -> str:
    return f"\\{text}" if text in NAMES else text


def _limit(sign: str) -> Callable[[Element], str]:
    def write(element: Element) -> str:
        return _name(_part(element, "e")) + _script(sign, _part(element, "lim"))

    return write


def _accent(element: Element) -> str:
    return f"\\{ACCENTS.get(_property(element, 'chr', '^'), 'hat')}{{{_part(element, 'e')}}}"


def _bar(element: Element) -> str:
    name = "overline" if _property(element, "pos", "bot") == "top" else "underline"
    return f"\\{name}{{{_part(element, 'e')}}}"


def _matrix(element: Element) -> str:
    rows = r" \\ ".join(" & ".join(_parts(row, "e")) for row in element if tag_of(row) == "mr")
    return rf"\begin{{matrix}} {rows} \end{{matrix}}"


def _lines(element: Element) -> str:
    return r" \\ ".join(_parts(element, "e"))


WRITERS: Mapping[str, Callable[[Element], str]] = {
    "f": _fraction,
    "rad": _root,
    "ssup": _scripts,
    "ssub": _scripts,
    "ssubsup": _scripts,
    "spre": _scripts_before,
    "nary": _large_operator,
    "d": _brackets,
    "func": _function,
    "limlow": _limit("_"),
    "limupp": _limit("^"),
    "acc": _accent,
    "bar": _bar,
    "m": _matrix,
    "eqarr": _lines,
}
