"""Figures of matplotlib as SVG inside a page: the colours and the font are the page's, and no id occurs twice."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Colours to draw with; each becomes the variable of the page's style sheet that has its name.
INK, SOFT, LINE, BAR, MUTED, WRONG = (f"#0000{number:02x}" for number in range(1, 7))
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", BAR: "bar", MUTED: "muted", WRONG: "wrong"}
UNITS_PER_INCH = 72  # of an SVG by matplotlib; one is a pixel at the natural width
FONT = 12  # pixels, where the figure has its natural width
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")  # characters that XML does not allow
SETTINGS: dict[Any, Any] = {  # the stubs of matplotlib list every key as a literal
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "slmtune",  # the same figure gives the same bytes
    "font.size": FONT,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "text.color": INK,
    "text.parse_math": False,  # a name may contain a dollar sign
    "grid.color": LINE,
    "axes.grid": True,
    "axes.axisbelow": True,
}


def draw_svg(size: tuple[int, int], paint: Callable[[Axes], None], name: str, description: str) -> str:
    """A figure as an element for HTML.

    Args:
        size: width and height in pixels.
        paint: draws on the axes of the figure.
        name: what the ids inside begin with; unique on its page.
        description: what people hear who do not see the figure.
    """
    content = io.StringIO()
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has its own fonts
        figure = Figure((size[0] / UNITS_PER_INCH, size[1] / UNITS_PER_INCH), dpi=UNITS_PER_INCH)
        FigureCanvasSVG(figure)  # measures text as it will be drawn
        paint(figure.subplots())
        ConstrainedLayoutEngine().execute(figure)  # once: a figure that has a layout is drawn twice when it is saved
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(CONTROL.sub("", content.getvalue()))
    _strip(root)
    _rename_ids(root, name)
    for element in root.iter():
        _style(element)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")


def _strip(root: ElementTree.Element) -> None:
    """Drop namespaces, metadata, style sheets and line breaks: the elements are part of an HTML page."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: " ".join(value.split()) for key, value in element.attrib.items()}
        element.tail = None
        if element.tag != "text":
            element.text = None
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    """Prefix the ids that something refers to, and drop the others."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    wanted = {one or other for one, other in used}
    for element in root.iter():
        if element.get("id") in wanted:
            element.set("id", f"{name}-{element.get('id')}")
        else:
            element.attrib.pop("id", None)
        if "href" in element.attrib:
            element.set("href", f"#{name}-{element.attrib['href'][1:]}")
        if "clip-path" in element.attrib:
            element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{name}-"))


def _style(element: ElementTree.Element) -> None:
    """Replace colours by variables of the page, and leave the font to it."""
    style = re.sub(r"font(-family)?: ?[^;]*(;|$)", _keep_size, element.get("style", ""))
    for color, variable in VARIABLES.items():
        style = style.replace(color, f"var(--{variable})")
    if style.strip("; "):
        element.set("style", style.strip("; "))
    else:
        element.attrib.pop("style", None)


def _keep_size(declaration: re.Match[str]) -> str:
    size = re.search(r"[\d.]+px", declaration[0])
    return f"font-size: {size[0]};" if size else ""
