"""The conversation behind `slmtune chat`."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune.artifacts import Corpus
from finetune.cli.console import console
from finetune.cli.dialogue import Dialogue
from finetune.errors import ContextLengthError, EngineStoppedError, InputError, UnknownNameError
from finetune.models.load import LoadedModel
from finetune.recipe.options import ChatOptions
from finetune.records import Message
from finetune.serve.chat import Conversation, open_conversation
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams
from finetune.serve.targets import ServeTarget

from ..command import run as slmtune
from .conftest import Brake

GREEDY = GenerationParams(max_tokens=12, temperature=0)


def test_an_answer_depends_on_what_was_said_before(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    conversation = Conversation(engine, "tiny", system="Be brief.", params=GREEDY)
    first = "".join(conversation.reply("Did profit rise?"))
    second = "".join(conversation.reply("And costs?"))
    said = [
        Message("system", "Be brief."),
        Message("user", "Did profit rise?"),
        Message("assistant", first),
        Message("user", "And costs?"),
    ]
    assert second == "".join(engine.generate(said, GREEDY, "tiny"))
    assert conversation.messages == [*said[1:], Message("assistant", second)]
    assert conversation.last is not None
    assert conversation.last.prompt_tokens == len(engine.encode_chat(said))


def test_the_oldest_turns_are_forgotten_when_the_context_is_full(make_engine: Callable[..., Engine]) -> None:
    conversation = Conversation(make_engine(), "tiny", system="Be brief.", params=GREEDY)
    for number in range(12):
        assert list(conversation.reply(f"turn {number}: " + "profit rose " * 15))
    assert conversation.forgotten
    assert len(conversation.messages + conversation.forgotten) == 2 * 12
    assert conversation.messages[0].content.startswith(f"turn {len(conversation.forgotten) // 2}:")


def test_a_turn_longer_than_the_context_is_refused_and_forgotten(make_engine: Callable[..., Engine]) -> None:
    conversation = Conversation(make_engine(), "tiny", params=GREEDY)
    with pytest.raises(ContextLengthError):
        list(conversation.reply("x y " * 600))
    assert conversation.messages == []
    assert list(conversation.reply("short"))


def test_an_unfinished_answer_is_remembered_as_far_as_it_was_generated(
    make_engine: Callable[..., Engine], loaded: LoadedModel
) -> None:
    brake = Brake(loaded)
    brake.released.set()
    conversation = Conversation(make_engine(), "tiny", params=GenerationParams(max_tokens=400, temperature=0))
    pieces = conversation.reply("Did profit rise?")
    first = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert conversation.messages == [Message("user", "Did profit rise?"), Message("assistant", first)]
    assert conversation.last is None


def test_clearing_forgets_everything_but_the_system_turn(make_engine: Callable[..., Engine]) -> None:
    conversation = Conversation(make_engine(), "tiny", system="Be brief.", params=GREEDY)
    first = list(conversation.reply("Did profit rise?"))
    conversation.clear()
    assert list(conversation.reply("Did profit rise?")) == first


@pytest.fixture
def adapted(two_adapters: dict[str, Path], tiny_model: Path) -> Iterator[Conversation]:
    """A conversation with one of two adapters, whose base model is there as well."""
    (name, path), *others = two_adapters.items()
    options = ChatOptions(max_new_tokens=6)
    with open_conversation(name, path, options, others=[ServeTarget(*other) for other in others]) as conversation:
        assert isinstance(conversation, Conversation)
        assert conversation.models == ("health", "finance", tiny_model.name)
        yield conversation


def test_another_model_goes_on_with_the_conversation(adapted: Conversation, two_adapters: dict[str, Path]) -> None:
    first = "".join(adapted.reply("Did profit rise?"))
    adapted.switch("finance")
    second = "".join(adapted.reply("And costs?"))
    with open_conversation("finance", two_adapters["finance"], ChatOptions(max_new_tokens=6)) as alone:
        assert isinstance(alone, Conversation)
        alone.messages = [Message("user", "Did profit rise?"), Message("assistant", first)]
        assert "".join(alone.reply("And costs?")) == second
    with pytest.raises(UnknownNameError, match="Did you mean 'finance'"):
        adapted.switch("finanse")
    assert adapted.model == "finance"


def test_base_and_adapter_answer_the_same_question(adapted: Conversation, tiny_model: Path) -> None:
    before = "".join(adapted.reply("Did profit rise?"))
    answers = {name: "".join(pieces) for name, pieces in adapted.compare("And costs?")}
    assert list(answers) == [tiny_model.name, "health"]
    assert answers[tiny_model.name] != answers["health"]
    said = [("user", "Did profit rise?"), ("assistant", before), ("user", "And costs?")]
    assert [(turn.role, turn.content) for turn in adapted.messages] == [*said, ("assistant", answers["health"])]
    again = {name: "".join(pieces) for name, pieces in adapted.compare()}
    assert again == answers  # the last question, in place of its first answer
    assert len(adapted.messages) == 4
    adapted.switch(tiny_model.name)
    with pytest.raises(InputError, match="no base model here"):
        next(adapted.compare())
    assert len(adapted.messages) == 4
    adapted.switch("health")
    adapted.clear()
    with pytest.raises(InputError, match="Nothing was asked yet"):
        next(adapted.compare())


def test_saved_conversation_is_whole_and_private(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    conversation = Conversation(make_engine(), "tiny", system="Be brief.", params=GREEDY)
    file = tmp_path / "chats.jsonl"
    with pytest.raises(InputError, match="nothing to save"):
        conversation.save(file)
    answers = ["".join(conversation.reply(f"turn {number}: " + "profit rose " * 15)) for number in range(12)]
    assert conversation.forgotten
    assert conversation.save(file) == 25
    conversation.clear()
    list(conversation.reply("Did profit rise?"))
    conversation.save(file)
    first, second = [json.loads(line)["messages"] for line in file.read_text("utf-8").splitlines()]
    assert first[0] == {"role": "system", "content": "Be brief."}
    assert [turn["content"] for turn in first if turn["role"] == "assistant"] == answers
    assert len(second) == 3
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="cannot be written"):
        conversation.save(tmp_path / "nowhere" / "chats.jsonl")


def test_saved_conversations_are_rows_for_prepare(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    conversation = Conversation(make_engine(), "tiny", system="Be brief.", params=GREEDY)
    for number in range(20):
        question = Message("user", f"Did the profit of bank number {number} rise?")
        conversation.messages = [question, Message("assistant", f"It rose by {number} million.")]
        conversation.save(tmp_path / "chats.jsonl")
    words = ("prepare", "--source", "chats.jsonl", "--split-ratio", "0.6/0.2/0.2", "--output-dir", "corpus")
    done = slmtune(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sum(Corpus.open(tmp_path / "corpus").counts.values()) == 20


class Typed(io.StringIO):
    """Lines that come from a terminal."""

    def isatty(self) -> bool:
        return True


def test_interrupted_answer_is_not_the_end(
    make_engine: Callable[..., Engine],
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    brake = Brake(loaded)
    conversation = Conversation(make_engine(), "tiny", params=GREEDY)

    def interrupt() -> None:
        assert brake.reached.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        brake.released.set()

    monkeypatch.setattr("sys.stdin", Typed("Did profit rise?\nDid costs?\n/modle\n"))
    monkeypatch.setattr(console, "out", out := io.StringIO())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        Dialogue(conversation).run()
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    first, second = out.getvalue().splitlines()
    assert first == " (stopped)"
    assert second == conversation.messages[-1].content
    assert "Did you mean '/model'?" in capsys.readouterr().err


def test_a_conversation_with_an_adapter_is_greedy_and_closes_the_engine(two_adapters: dict[str, Path]) -> None:
    said = []
    for _ in range(2):
        with open_conversation("health", two_adapters["health"], ChatOptions(max_new_tokens=6)) as conversation:
            said.append(list(conversation.reply("Did profit rise?")))
    assert said[0] == said[1] != []
    with pytest.raises(EngineStoppedError):
        list(conversation.reply("Still there?"))
