"""Pieces of text: whole characters, nothing lost, and no part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders

from finetune.serve.engine.text import Detokenizer, StopStrings


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_model / "tokenizer.json"))


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    detokenizer = Detokenizer(lambda some: str(tokenizer.decode(list(some))))
    return [*(detokenizer.push(token) for token in ids), detokenizer.finish()]


@given(ids=st.lists(st.integers(0, 299), max_size=200))
def test_pieces_of_any_tokens_join_to_their_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids)


@given(text=st.text(max_size=80))
def test_characters_are_never_cut(tokenizer: Tokenizer, text: str) -> None:
    pieces = pieces_of(tokenizer, tokenizer.encode(text.replace("\ufffd", "")).ids)
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_is_returned_with_its_last_byte(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("👩 ok").ids
    assert pieces_of(tokenizer, ids)[:4] == ["", "", "", "👩"]


def test_an_unfinished_character_is_returned_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ok é").ids[:-1]
    assert pieces_of(tokenizer, ids)[-1] == tokenizer.decode(ids)[-1] == "\ufffd"


@given(text=st.text(st.sampled_from("aé你👩\n"), max_size=60))
def test_characters_from_single_bytes_are_never_cut(text: str) -> None:
    """Tokenizers with byte fallback spell unknown characters; one missing byte spoils the whole run."""
    decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    detokenizer = Detokenizer(lambda some: decoder.decode([f"<0x{byte:02X}>" for byte in some]))
    pieces = [detokenizer.push(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert detokenizer.finish() == ""


def cut(pieces: Sequence[str], *stops: str) -> tuple[str, bool]:
    stop = StopStrings(stops)
    text = ""
    for piece in pieces:
        text += stop.push(piece)
        if stop.is_complete:
            return text, True
    return text + stop.finish(), False


PIECES = st.lists(st.text("ab", max_size=3), max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=3), max_size=4)


@given(pieces=PIECES, stops=STOPS)
def test_text_ends_before_a_stop_string_in_any_pieces(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    text, is_complete = cut(pieces, *stops)
    assert is_complete == any(stop in whole for stop in stops)
    assert whole.startswith(text)
    assert not any(stop in text for stop in stops)
    assert is_complete or text == whole


def test_the_beginning_of_a_stop_string_is_held_back_until_it_ends_otherwise() -> None:
    stop = StopStrings(["<end>"])
    assert [stop.push(piece) for piece in ("a <", "en", "d", "ing>")] == ["a ", "", "", "<ending>"]
