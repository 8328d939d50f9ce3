"""Code and tables inside texts: what cleaning must not rewrite, and a function that changes only what lies around it."""

from __future__ import annotations

import re
from collections.abc import Callable

# What must stand before a character is asked after it, so that the search can skip to the few that can begin a match.
# A fenced block, to the end of the text if it is not closed, or a span between backticks.
_CODE = (
    r"(?P<fence>(?<=`)`{2,}+|(?<=~)~{2,}+)[^`\n]*+\n(?s:.*?)(?:^[ \t]*+(?P=fence)(?:(?<=`)`|(?<=~)~)[`~]*+[ \t]*+$|\Z)"
    r"|(?<=`)[^`\n]++`"
)
# Indented lines, which may be code, and lines of Markdown tables.
_LAYOUT = r"(?<![^\n].)(?:(?:(?<= ) |(?<=\t))[ \t]*+(?=[^ \t\n])|(?<=\|)|(?<=[ \t])\|)[^\n]*[^ \t\n]"
CODE = re.compile(f"[`~](?:{_CODE})", re.M)
KEPT = re.compile(rf"[`~| \t](?:{_LAYOUT}|{_CODE})", re.M)


def change_outside(pattern: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    """Change only what lies outside of the matches: of CODE, or of KEPT, which includes indented lines and tables."""
    pieces: list[str] = []
    end = 0
    for match in pattern.finditer(text):
        pieces += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*pieces, change(text[end:])]) if pieces else change(text)
