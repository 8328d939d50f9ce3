"""The dialogue of `slmtune chat`: what a person types is a command or goes to the model."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.console import console
from finetune.errors import InputError, UnknownNameError
from finetune.machine import state_folder

if TYPE_CHECKING:
    from finetune.serve.chat import Conversation, Reading

COMMAND = re.compile(r"/(\w+)(?:\s+(.*))?")
HISTORY = 1000  # lines that are kept


def converse(conversation: Conversation | Reading, prompt: str | None, *, save_history: bool) -> None:
    """Send `prompt`, or what is typed until the end of the input, to the model."""
    if prompt is None:
        history = state_folder() / "chat-history" if save_history else None
        with line_editing(history):
            Dialogue(conversation).run()
    elif console.as_json:
        console.result(conversation.answer(prompt), str)
    else:
        console.stream(conversation.reply(prompt))


@contextmanager
def line_editing(history: Path | None) -> Iterator[None]:
    """Let the arrow keys recall what was typed: in this dialogue or, with a file, in earlier ones as well.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        import readline
    except ImportError:  # some builds of Python have none
        yield
        return
    readline.clear_history()
    if history is None:
        yield
        return
    try:
        history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        history.touch(mode=0o600)
    except OSError as error:
        raise InputError(f"{history} cannot be written ({error.strerror}). Leave out --save-history") from None
    readline.read_history_file(history)
    readline.set_history_length(HISTORY)
    try:
        yield
    finally:
        readline.write_history_file(history)


@dataclass(frozen=True)
class Command:
    """What a line that begins with `/` does with the rest of it."""

    argument: str
    purpose: str
    run: Callable[[str], None]


class Dialogue:
    """Reads lines until the end of the input, and runs the commands among them."""

    def __init__(self, conversation: Conversation | Reading) -> None:
        from finetune.serve.chat import Conversation

        self._partner = conversation
        self._done = False
        own = (
            self._of_conversation(conversation)
            if isinstance(conversation, Conversation)
            else self._of_reading(conversation)
        )
        self._commands = {
            "model": Command("[NAME]", "list the models, or go on with another one", self._switch),
            **own,
            "help": Command("", "list these commands", self._help),
            "quit": Command("", "end the conversation, as Ctrl-D does", self._quit),
        }

    def run(self) -> None:
        """Answer everything that is typed."""
        console.say("/help lists the commands; Ctrl-D ends the conversation.")
        while not self._done and (line := console.ask()) is not None:
            if line:
                self._take(line)

    def _take(self, line: str) -> None:
        """Run or send a line; in a terminal, one that cannot be answered, or an interrupted answer, is not the end."""
        try:
            self._dispatch(line)
        except InputError as error:
            if not sys.stdin.isatty():
                raise
            console.error(str(error))
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            console.stream(["", " (stopped)"])

    def _dispatch(self, line: str) -> None:
        match = COMMAND.fullmatch(line)
        if match is None:
            console.stream(self._partner.reply(line.removeprefix("/") if line.startswith("//") else line))
            return
        name, rest = match[1], (match[2] or "").strip()
        if name not in self._commands:
            hint = "To send a text that begins with /, write // instead."
            raise UnknownNameError("command", f"/{name}", [f"/{known}" for known in self._commands], hint)
        self._commands[name].run(rest)

    def _of_conversation(self, conversation: Conversation) -> dict[str, Command]:
        def compare(text: str) -> None:
            for model, pieces in conversation.compare(text or None):
                console.stream(_named(model, pieces))

        def save(name: str) -> None:
            turns = conversation.save(_path(name, "/save FILE"))
            console.say(f"Added the conversation to {name}: {turns} turns.")

        def clear(_: str) -> None:
            conversation.clear()
            console.say("The conversation starts again.")

        return {
            "compare": Command(
                "[QUESTION]", "answer a question, or the last one, with the base model as well", compare
            ),
            "save": Command("FILE", "add the conversation to a file of JSON Lines, which prepare reads", save),
            "clear": Command("", "forget what was said", clear),
        }

    def _of_reading(self, reading: Reading) -> dict[str, Command]:
        def read(name: str) -> None:
            console.say(f"Context: {reading.take_context(_path(name, '/context FILE'))} characters")

        return {"context": Command("FILE", "find answers in this text, or pair it with what is typed", read)}

    def _switch(self, name: str) -> None:
        if name:
            self._partner.switch(name)
        marks = {model: "*" if model == self._partner.model else " " for model in self._partner.models}
        console.say("\n".join(f"{mark} {model}" for model, mark in marks.items()))

    def _help(self, _: str) -> None:
        rows = {f"/{name} {command.argument}".strip(): command.purpose for name, command in self._commands.items()}
        width = max(map(len, rows))
        console.say("\n".join(f"{usage:<{width}}  {purpose}" for usage, purpose in rows.items()))

    def _quit(self, _: str) -> None:
        self._done = True


def _named(model: str, pieces: Iterator[str]) -> Iterator[str]:
    yield f"[{model}] "
    yield from pieces


def _path(name: str, usage: str) -> Path:
    if not name:
        raise InputError(f"The name of the file is missing. Write {usage}")
    return Path(name).expanduser()
