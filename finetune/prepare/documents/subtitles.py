"""Subtitles (.srt, .vtt): what is spoken, as paragraphs of running text without times.

With regular expressions: both formats are lines of text below a line with two times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from finetune.errors import Unusable
from finetune.prepare.documents.outline import Outline, one_line
from finetune.prepare.documents.reflow import SENTENCE_END
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

PAUSE = 3.0  # seconds without subtitles, after which a paragraph begins
LONGEST = 1000  # characters of a paragraph, after which it ends with the next sentence
LINE_END = re.compile(r"\r\n?")
TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
TIMES = re.compile(rf"^[ \t]*{TIME}[ \t]*-->[ \t]*{TIME}(.*)$", re.M)
NUMBER = re.compile(r"(?:\A|\n)\ufeff?[ \t]*\d+[ \t]*\n?\Z")
NAME = re.compile(r"\n[ \t]*\n[^\n]+\n\Z")  # of a cue of WebVTT
ASIDE = re.compile(r"(?:NOTE|STYLE|REGION)\b.*?(?:\n[ \t]*\n|\Z)", re.S)
VOICE = re.compile(r"<v(?:\.[\w.-]+)?[ \t]+([^<>]+)>")
MARKUP = re.compile(r"</?(?:[biuscv]|font|lang|ruby|rt)\b[^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}", re.I)
SPEAKER = re.compile(r"^[ \t]*[-–—][ \t]*(?=\S)")


@dataclass(frozen=True, slots=True)
class Cue:
    """A subtitle: its first and last second, and its lines."""

    start: float
    end: float
    lines: tuple[str, ...]


def read(data: bytes, shown: str) -> Document:
    """The text of all subtitles; a pause begins a paragraph, and so does each line with a dash, which is another speaker.

    Raises:
        Unusable: there is no subtitle, or none has text.
    """
    text = LINE_END.sub("\n", decode(data, shown))
    outline = Outline()
    cues = list(_cues(text, outline))
    if not outline.unused["time code"]:
        raise Unusable(
            "damaged_subtitles", "it has no line with times such as 00:01:02,000 --> 00:01:04,000. Save it again"
        )
    paragraph = ""
    last: Cue | None = None
    for cue in cues:
        long = len(paragraph) > LONGEST and SENTENCE_END.search(paragraph)
        if last is not None and (long or cue.start - last.end >= PAUSE):
            outline.block(paragraph)
            paragraph = ""
        for line in _new_lines(cue, last, outline):
            spoken = SPEAKER.sub("", line)
            paragraph += ("\n" if paragraph and spoken != line else " " if paragraph else "") + spoken
        last = cue
    outline.block(paragraph)
    return outline.document()


def _new_lines(cue: Cue, last: Cue | None, outline: Outline) -> tuple[str, ...]:
    """The lines of a subtitle without those that still stand there from the last one, as in captions that roll."""
    if last is not None and cue.start - last.end < PAUSE:
        for count in range(min(len(cue.lines), len(last.lines)), 0, -1):
            if cue.lines[:count] == last.lines[-count:]:
                outline.unused["repeated line"] += count
                return cue.lines[count:]
    return cue.lines


def _cues(text: str, outline: Outline) -> Iterator[Cue]:
    """The subtitles; counts what stands between them."""
    marks = list(TIMES.finditer(text))
    start = 0
    times: list[float] = []
    for mark in (*marks, None):
        piece = text[start : mark.start() if mark else None]
        if mark:
            piece = NUMBER.sub("", piece) if NUMBER.search(piece) else _without_name(piece, outline)
        lines = _count_asides(piece, outline)
        if not times:
            outline.unused["note"] += bool(lines.removeprefix("\ufeff").removeprefix("WEBVTT").strip())
        elif filled := tuple(filter(None, map(one_line, _plain(lines, outline).split("\n")))):
            yield Cue(_seconds(*times[:4]), _seconds(*times[4:]), filled)
        if mark:
            start = mark.end()
            times = [float(part or 0) for part in mark.groups()[:8]]
            outline.unused["time code"] += 1
            outline.unused["position"] += bool(mark[9].strip())


def _without_name(piece: str, outline: Outline) -> str:
    piece, count = NAME.subn("\n", piece)
    outline.unused["name of a cue"] += count
    return piece


def _count_asides(text: str, outline: Outline) -> str:
    """The text without notes and styles, which stand between subtitles, after a blank line."""
    before, blank, after = text.partition("\n\n")
    rest, count = ASIDE.subn("", after)
    outline.unused["note"] += count
    return before + blank + rest


def _plain(text: str, outline: Outline) -> str:
    text = VOICE.sub(r"- \1: ", text)
    outline.unused["markup"] += len(MARKUP.findall(text))
    return MARKUP.sub("", text)


def _seconds(hours: float, minutes: float, seconds: float, rest: float) -> float:
    return hours * 3600 + minutes * 60 + seconds + rest / 1000
