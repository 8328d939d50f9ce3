"""Subtitles: SubRip and WebVTT."""

from __future__ import annotations

import pytest

from finetune.errors import Unusable
from finetune.prepare.documents.readers import read_document


def srt(*cues: tuple[int, str]) -> str:
    """Subtitles that each begin at a second and last for two."""
    return "\n".join(
        f"{n}\n00:00:{at:02},000 --> 00:00:{at + 2:02},000\n{text}\n" for n, (at, text) in enumerate(cues, 1)
    )


def read(text: str, name: str = "a.srt") -> tuple[str, dict[str, int]]:
    document = read_document(text.encode(), name, name)
    return document.sections[0].text, dict(document.unused)


def vtt(*cues: str, head: str = "WEBVTT") -> str:
    times = (f"00:0{n}.000 --> 00:0{n + 1}.000" for n in range(len(cues)))
    return f"{head}\n\n" + "".join(
        f"{time}{'' if text[0] == ' ' else chr(10)}{text}\n\n" for time, text in zip(times, cues, strict=True)
    )


SUBTITLES = {
    "running text": (srt((1, "It\nleaves"), (3, "at six."), (5, "1934 was early.")), "It leaves at six. 1934 was early.", {}),
    "pause": (srt((1, "At six."), (20, "At ten.")), "At six.\n\nAt ten.", {}),
    "speakers": (srt((1, "- Who goes?\n- Ann does."), (3, "Good.")), "Who goes?\nAnn does. Good.", {}),
    "markup": (srt((1, "<i>At</i> {\\an8}six, if 3 < 4.")), "At six, if 3 < 4.", {"markup": 3}),
    "Windows": (srt((1, "At six."), (3, "Now.")).replace("\n", "\r\n"), "At six. Now.", {}),
    "number for a text": (srt((1, "How many?"), (3, "12")), "How many? 12", {}),
    "no blank lines": ("1\n00:00:01,0 --> 00:00:02,0\nAt six.\n2\n00:00:02,5 --> 00:00:03,0\nNow.", "At six. Now.", {}),
    "empty": (srt((1, ""), (3, "Now.")), "Now.", {}),
    "rolling": (vtt("It leaves", "It leaves\nat six", "at six\nhere."), "It leaves at six here.", {"repeated line": 2}),
    "voices": (vtt("<v Ann>Who goes?</v>", "<v.loud Ben>I do.</v>"), "Ann: Who goes?\nBen: I do.", {"markup": 2}),
    "notes": (vtt("At six.", head="WEBVTT - Port\n\nNOTE CANARY\nmore\n\nSTYLE\n::cue {}"), "At six.", {"note": 3}),
    "note between": (vtt("At six.\n\nNOTE CANARY", "Now."), "At six. Now.", {"note": 1}),
    "position": (vtt(" line:0\nAt six."), "At six.", {"position": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected", "unused"), SUBTITLES.values(), ids=SUBTITLES)
def test_what_is_spoken_is_running_text(text: str, expected: str, unused: dict[str, int]) -> None:
    spoken, counts = read(text, "a.vtt" if text.startswith("WEBVTT") else "a.srt")
    del counts["time code"]
    assert (spoken, counts) == (expected, unused)


def test_names_of_cues_are_counted() -> None:
    text = "WEBVTT\n\nCANARY\n00:01.000 --> 00:02.000\nAt six.\n\nother\n00:02.000 --> 00:03.000\nNow.\n"
    assert read(text, "a.vtt") == ("At six. Now.", {"time code": 2, "name of a cue": 2})


@pytest.mark.parametrize(
    ("text", "reason"), [("", "damaged_subtitles"), ("no times", "damaged_subtitles"), (srt((1, "")), "no_text")]
)
def test_file_without_subtitles_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        read(text)
    assert caught.value.reason == reason
