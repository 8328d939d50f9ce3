"""The conversation behind `slmtune chat`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.errors import ContextLengthError, EngineStoppedError
from finetune.models.load import LoadedModel
from finetune.recipe.options import ChatOptions
from finetune.records import Message
from finetune.serve.chat import Conversation, open_conversation
from finetune.serve.engine import Engine
from finetune.serve.job import GenerationParams

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
    assert conversation.forgotten > 0
    assert len(conversation.messages) == 2 * (12 - conversation.forgotten)
    assert conversation.messages[0].content.startswith(f"turn {conversation.forgotten}:")


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


def test_a_conversation_with_an_adapter_is_greedy_and_closes_the_engine(two_adapters: dict[str, Path]) -> None:
    said = []
    for _ in range(2):
        with open_conversation("health", two_adapters["health"], ChatOptions(max_new_tokens=6)) as conversation:
            said.append(list(conversation.reply("Did profit rise?")))
    assert said[0] == said[1] != []
    with pytest.raises(EngineStoppedError):
        list(conversation.reply("Still there?"))
