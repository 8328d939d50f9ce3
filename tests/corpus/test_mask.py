"""Rows as a model sees them: the tokens of training, those that carry loss marked, and no control over the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from finetune.artifacts import Corpus
from finetune.cli.console import console
from finetune.cli.render.mask import paint, render_mask
from finetune.corpus.mask import mask_row, show_mask
from finetune.corpus.store import read_split
from finetune.corpus.view import show_corpus
from finetune.errors import OfflineError
from finetune.models.chat_template import render
from finetune.models.find import find_base
from finetune.models.tokenizer import load_tokenizer
from finetune.records import Example, Message

from ..command import run
from ..conftest import chat
from ..corpora import write_corpus

ROW = Example("q/1", (Message("system", "Be brief."), *chat("Up?", "Yes,\nup.", "And now?", "Down.")), "chat")
TEXT = Example("t/1", (Message("assistant", "The bank rose."),), "text")
SHOWN = """\
    <|im_start|>system
    Be brief.<|im_end|>
    <|im_start|>user
    Up?<|im_end|>
    <|im_start|>assistant
    ⟦Yes,
    up.<|im_end|>⟧
    <|im_start|>user
    And now?<|im_end|>
    <|im_start|>assistant
    ⟦Down.<|im_end|>⟧"""


class Terminal(io.StringIO):
    """A terminal instead of a file."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", {"train": [ROW], "test": [TEXT]}).path


def test_supervised_tokens_are_in_brackets(corpus: Path, tiny_model: Path) -> None:
    text = render_mask(show_mask(corpus, model=str(tiny_model)))
    assert SHOWN in text
    assert "    ⟦The bank rose.<|im_end|>⟧" in text


def test_ids_and_mask_are_those_of_training(corpus: Path, tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    view = show_mask(corpus, model=str(tiny_model))
    rendered = render(tokenizer, ROW)
    row = next(sample.row for sample in view.samples if sample.id == "q/1")
    assert (row.ids, row.mask, row.cut) == (rendered.ids, rendered.supervised, 0)
    done = run("show", corpus, "--mask", "--model", tiny_model, "--json", cwd=corpus.parent)
    assert json.loads(done.stdout)["samples"][0]["row"]["ids"] == list(rendered.ids)


def test_rows_are_those_of_show(tiny_corpus: Path, tiny_model: Path) -> None:
    masked = show_mask(tiny_corpus, model=str(tiny_model), samples=2)
    assert [row.id for row in masked.samples] == [row.id for row in show_corpus(tiny_corpus, samples=2).samples]


def test_truncated_rows_are_told(tmp_path: Path, tiny_model: Path) -> None:
    long = Example("q/2", chat("word " * 2000, "Never seen."), "qa")
    view = show_mask(write_corpus(tmp_path / "c", {"train": [long]}).path, model=str(tiny_model))
    (sample,) = view.samples
    assert (len(sample.row.ids), sample.row.supervised) == (view.max_length, 0)
    text = render_mask(view)
    assert "1 of these rows are cut off" in text
    assert f"no token carries loss, {sample.row.cut:,} more are cut off" in text


@pytest.mark.parametrize(
    ("no_colour", "mark"),
    [("", "\x1b[32mYes,\x1b[0m\n\x1b[32m    up.<|im_end|>\x1b[0m\n"), ("1", "⟦Yes,\n    up.<|im_end|>⟧\n")],
)
def test_terminals_get_colours_unless_told_otherwise(
    corpus: Path, tiny_model: Path, no_colour: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "out", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_colour)
    assert mark in render_mask(show_mask(corpus, model=str(tiny_model)))


def test_terminals_without_such_brackets_get_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "out", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert paint("⟦Größe⟧") == "[[Gr\\xf6\\xdfe]]"


def test_text_of_rows_neither_controls_the_terminal_nor_forges_a_mark(tmp_path: Path, tiny_model: Path) -> None:
    row = Example("x/1", chat("\x1b[31mred ⟦ \u202eback", "ok⟧"), "qa")
    text = render_mask(show_mask(write_corpus(tmp_path / "c", {"train": [row]}).path, model=str(tiny_model)))
    assert "\\x1b[31mred \\u27e6 \\u202eback" in text
    assert "⟦ok\\u27e7<|im_end|>⟧" in text


def test_a_tokenizer_is_needed(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError):
        show_mask(corpus, model="qwen2.5-0.5b")


def test_a_row_of_a_corpus_is_rendered_whole(tiny_corpus: Path, tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    example = read_split(Corpus.open(tiny_corpus), "train")[0]
    row = mask_row(tokenizer, example, 10_000)
    assert "".join(piece.text for piece in row.pieces) == tokenizer.decode(list(row.ids))
