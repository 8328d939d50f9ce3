"""What a person types in `slmtune chat`: commands, and texts for the model."""

from __future__ import annotations

import io
import json
import os
import pty
import select
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from finetune.cli.console import console
from finetune.cli.dialogue import Dialogue, converse, line_editing
from finetune.errors import InputError, UnknownNameError
from finetune.recipe.options import ChatOptions
from finetune.serve.chat import Conversation, open_conversation

from ..command import Command, use_terminal

Talk = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def conversation(tiny_adapter: Path) -> Iterator[Conversation]:
    with open_conversation("mine", tiny_adapter, ChatOptions(max_new_tokens=4)) as conversation:
        assert isinstance(conversation, Conversation)
        yield conversation


@pytest.fixture
def talk(conversation: Conversation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Types lines into a new dialogue, and returns what it prints to stdout and stderr."""
    conversation.clear()
    conversation.switch("mine")

    def type_lines(*lines: str) -> tuple[str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        monkeypatch.setattr(console, "out", out := io.StringIO())
        capsys.readouterr()
        Dialogue(conversation).run()
        return out.getvalue(), capsys.readouterr().err

    return type_lines


def test_help_lists_every_command(talk: Talk) -> None:
    out, err = talk("/help")
    assert [line.split()[0] for line in err.splitlines()[1:]] == [
        *("/model", "/compare", "/save", "/clear", "/help", "/quit")
    ]
    assert out == ""


def test_model_is_listed_and_exchanged(talk: Talk, conversation: Conversation, tiny_model: Path) -> None:
    _, err = talk("/model", f"/model {tiny_model.name}")
    assert err.splitlines()[1:] == ["* mine", f"  {tiny_model.name}", "  mine", f"* {tiny_model.name}"]
    assert conversation.model == tiny_model.name


def test_compare_prints_both_answers_under_their_names(
    talk: Talk, conversation: Conversation, tiny_model: Path
) -> None:
    out, _ = talk("/compare Did profit rise?")
    assert out.startswith(f"[{tiny_model.name}] ")
    assert "\n[mine] " in out
    assert conversation.messages[-1].content == out.partition("\n[mine] ")[2].removesuffix("\n")
    assert talk("/compare")[0] == out
    assert len(conversation.messages) == 2


def test_conversation_is_saved_and_cleared(talk: Talk, conversation: Conversation, tmp_path: Path) -> None:
    file = tmp_path / "my chats.jsonl"
    _, err = talk("Did profit rise?", f"/save {file}", "/clear")
    assert err.splitlines()[1:] == [f"Added the conversation to {file}: 2 turns.", "The conversation starts again."]
    assert len(json.loads(file.read_text("utf-8"))["messages"]) == 2
    assert conversation.messages == []


def test_quit_ends_the_dialogue(talk: Talk, conversation: Conversation) -> None:
    assert talk("/quit", "Did profit rise?")[0] == ""
    assert conversation.messages == []


def test_paths_and_escaped_slashes_go_to_the_model(talk: Talk, conversation: Conversation) -> None:
    talk("/srv/data is full", "//help is a command")
    said = [turn.content for turn in conversation.messages if turn.role == "user"]
    assert said == ["/srv/data is full", "/help is a command"]


def test_mistake_in_a_file_of_lines_ends_the_dialogue(talk: Talk) -> None:
    with pytest.raises(UnknownNameError, match=r"no command '/modle'\. Did you mean '/model'\?.*write //"):
        talk("/modle")
    with pytest.raises(InputError, match="Write /save FILE"):
        talk("/save")


def test_one_question_is_answered_as_text_or_json(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for as_json in (False, True):
        conversation.clear()
        monkeypatch.setattr(console, "out", out := io.StringIO())
        monkeypatch.setattr(console, "as_json", as_json)
        converse(conversation, "Did profit rise?", save_history=False)
        answers.append(out.getvalue())
    assert json.loads(answers[1]) == {"answer": answers[0].removesuffix("\n")}


def test_nothing_typed_is_kept_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with line_editing(None):
        pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Leave out --save-history"), line_editing(tmp_path / "file" / "history"):
        pass


@pytest.mark.slow
def test_history_is_kept_privately_and_recalled(
    tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    words = ("chat", tiny_adapter, "--max-new-tokens", 1, "--save-history")
    for typed in (b"Did profit rise?\n", b"\x1b[A\n"):  # the second time, the arrow key recalls it
        terminal, inside = pty.openpty()
        chat = Command(*words, cwd=tmp_path, before=partial(use_terminal, os.ttyname(inside), 0, 1, 2))
        for keys in (typed, b"\x04"):
            read_until(terminal, b"> ")
            os.write(terminal, keys)
        assert chat.wait() == 0
        os.close(inside)
        os.close(terminal)
    history = tmp_path / "slmtune" / "chat-history"
    assert history.read_text("utf-8").splitlines() == ["Did profit rise?"]
    assert history.stat().st_mode & 0o777 == 0o600


def read_until(terminal: int, prompt: bytes) -> None:
    """Read what a program prints until it asks for input."""
    printed = b""
    while not printed.endswith(prompt):
        ready, _, _ = select.select([terminal], [], [], 120)
        assert ready, f"no prompt after {printed!r}"
        printed += os.read(terminal, 1024)
