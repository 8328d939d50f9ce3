"""reStructuredText, also as Sphinx extends it: read with docutils, whose HTML is then read like a page.

docutils (BSD-2-Clause and public domain, without dependencies) knows nested lists, tables and directives, which a few regular
expressions do not. It may neither include files nor pass raw HTML on. Directives and roles that it does not know, such as
those of Sphinx, are registered under their names, so that their text stays text.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

from docutils import nodes
from docutils.core import publish_doctree, publish_from_doctree
from docutils.parsers.rst import Directive, directives, roles
from docutils.parsers.rst.languages import en as known

from finetune.errors import Unusable
from finetune.prepare.documents.html import parse
from finetune.prepare.documents.markup import outline_of
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

MAX_RST = 2 * 2**20  # bytes: docutils reads about 100 KB per second
SETTINGS = {
    "_disable_config": True,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "docinfo_xform": False,
    "embed_stylesheet": False,
    "stylesheet_path": "",
    "report_level": 1,  # messages contain the text that could not be read
    "halt_level": 5,
    "warning_stream": False,
    "smart_quotes": False,
    "syntax_highlight": "none",
}
DIRECTIVE = re.compile(r"^[ \t]*\.\. (?:\|[^|\n]+\| )?([\w:.+-]+)::", re.M)
ROLE = re.compile(r":([\w:.+-]+):`")
TARGET = re.compile(r"\A(.+?)\s*<[^<>]+>\Z", re.S)
# Directives that make a list from elsewhere, read another file or speak to a program.
LEFT_OUT = frozenset(
    """autoclass autodata autoexception autofunction automethod automodule autosummary class contents currentmodule date
    default-domain default-role highlight include index literalinclude meta module raw role rst-class sectnum target-notes
    testcleanup testsetup title toctree""".split()
)
CODE = frozenset(
    """code code-block code-cell command-output doctest ipython jupyter-execute productionlist program-output prompt
    sourcecode testcode testoutput""".split()
)
CODE_ROLES = frozenset(
    """attr class command const data envvar exc file func kbd macro member meth mod obj option program samp type var
    """.split()
)


def read(data: bytes, shown: str) -> Document:
    """The headings and blocks of a text.

    Raises:
        Unusable: it has no text, or is too large.
        InputError: it is binary.
    """
    if len(data) > MAX_RST:
        raise Unusable("too_large", f"the file has more than {MAX_RST // 2**20} MiB of reStructuredText. Split it")
    text = decode(data, shown).replace("\0", "\ufffd")
    for name in {name.lower() for name in DIRECTIVE.findall(text)}:
        if name in LEFT_OUT:
            directives.register_directive(name, _LeftOut)
        elif name in CODE:
            directives.register_directive(name, _Code)
        elif name not in known.directives:
            directives.register_directive(name, _Other)
    for name in {name.lower() for name in ROLE.findall(text)} - known.roles.keys():
        roles.register_local_role(name, _read_role)
    try:
        document = publish_doctree(text, source_path="text", settings_overrides=SETTINGS)
        unused = _simplify(document, text)
        page = publish_from_doctree(document, writer="html5", settings_overrides=SETTINGS | {"report_level": 5})
    except (RecursionError, MemoryError):
        raise
    except Exception:  # docutils and its directives do not foresee all that a text may contain
        raise Unusable("damaged_rst", "docutils cannot read it. Check it with: docutils FILE") from None
    root = parse(page.decode("utf-8"))
    for numbered in root.iter("ol"):
        numbered.set("type", numbered.get("class", "").partition(" ")[0])  # loweralpha and the like
    return outline_of(root, unused).document()


class _LeftOut(Directive):  # type: ignore[misc]  # docutils has no types
    """A directive that is counted."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[Any] = defaultdict(lambda: directives.unchanged)

    def run(self) -> Sequence[nodes.Node]:
        """A node that leaves a trace of the directive."""
        return [nodes.comment("", "", names=[self.name])]


class _Other(_LeftOut):
    """A directive whose argument and content are text."""

    def run(self) -> Sequence[nodes.Node]:
        """The argument as a paragraph, and the content."""
        body = nodes.container()
        if self.arguments:
            line = self.arguments[0]
            is_name = "(" in line or " " not in line
            inner = [nodes.Text(line)] if is_name else self.state.inline_text(line, self.lineno)[0]
            body += nodes.paragraph("", "", *inner)
        self.state.nested_parse(self.content, self.content_offset, body)
        return [body]


class _Code(_LeftOut):
    """A directive whose content is code."""

    def run(self) -> Sequence[nodes.Node]:
        """The content as a block."""
        code = "\n".join(self.content)
        return [nodes.literal_block(code, code)]


def _read_role(
    role: str, source: str, text: str, line: int, inliner: object, options: object = None, content: object = None
) -> tuple[list[nodes.Node], list[nodes.Node]]:
    """The text of a role of Sphinx: without its target, and as code if it names some."""
    shown = TARGET.sub(r"\1", nodes.unescape(text)).lstrip("!")
    if shown.startswith("~"):
        shown = shown.rpartition(".")[2].lstrip("~")
    node = nodes.literal if role.rpartition(":")[2] in CODE_ROLES else nodes.inline
    return [node(source, shown)], []


def _simplify(document: nodes.document, source: str) -> Counter[str]:
    """Turn what HTML would hide into text, and remove and count the rest."""
    unused: Counter[str] = Counter()
    for message in list(document.findall(nodes.system_message)):
        is_read = "line too short" in message.astext()  # of a heading, which docutils reads nevertheless
        lost = [child for child in message.children if isinstance(child, nodes.literal_block) and not is_read]
        if message.parent is not None:
            message.parent.replace(message, lost)
    document.parse_messages, document.transform_messages = [], []
    for node in list(document.findall()):
        if isinstance(node, nodes.comment):
            unused[f"directive {node['names'][0]}" if node["names"] else "comment"] += 1
            node.parent.remove(node)
        elif isinstance(node, nodes.substitution_definition):
            unused["replacement"] += source.count(f"|{node['names'][0]}|") < 2
        elif isinstance(node, nodes.target):
            unused["link address"] += "refuri" in node and not node.referenced
        elif isinstance(node, nodes.image):
            unused["image"] += 1
            node.parent.remove(node)
        elif isinstance(node, nodes.reference) and "refuri" in node:
            unused["link address"] += node["refuri"] not in {node.astext(), f"mailto:{node.astext()}"}
        elif isinstance(node, nodes.field_list):
            node.parent.replace(node, [part for field in node.children for part in _field(field, unused)])
        elif isinstance(node, nodes.footnote | nodes.citation) and isinstance(node.children[0], nodes.label):
            label = node.pop(0).astext()
            node.parent.replace(node, _begin(f"[{label}] ", node.children))
        elif isinstance(node, nodes.literal):
            node.parent.replace(node, nodes.Text(f"`{node.astext()}`"))
        elif isinstance(node, nodes.math):
            node.parent.replace(node, nodes.Text(f"${node.astext()}$"))
        elif isinstance(node, nodes.math_block):
            node.parent.replace(node, nodes.paragraph("", f"$${node.astext()}$$"))
    return unused


def _field(field: nodes.Element, unused: Counter[str]) -> list[nodes.Node]:
    """A field such as `:param path: the file` as text."""
    name, body = field.children
    if not body.astext().strip():
        unused["field without text"] += 1
        return []
    return _begin(f"{name.astext()}: ", body.children)


def _begin(start: str, body: Sequence[nodes.Node]) -> list[nodes.Node]:
    """Blocks with a text at their beginning."""
    if body and isinstance(body[0], nodes.paragraph):
        body[0].insert(0, nodes.Text(start))
        return list(body)
    return [nodes.paragraph("", start), *body]
