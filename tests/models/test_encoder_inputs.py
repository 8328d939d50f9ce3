"""What an encoder reads of a row: one text or two, cut where they are longest, with the place of each token in the context."""

from __future__ import annotations

from typing import Any

import pytest

from finetune.models.encoder_inputs import encode
from finetune.records import Example, Message

from ..encoders import encoder_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return encoder_tokenizer()


def row(*turns: str, context: str | None = None) -> Example:
    roles: tuple[Any, ...] = ("user", "assistant") * len(turns)
    spoken = (Message(role, turn) for role, turn in zip(roles, turns, strict=False))
    return Example("row", (Message("system", "Is it good?"), *spoken), "classification", context=context)


def read(tokenizer: Any, example: Example, length: int = 64) -> str:
    text: str = tokenizer.decode(encode(tokenizer, example, length).ids)
    return text


def test_text_is_the_conversation_without_instruction_and_answer(tokenizer: Any) -> None:
    assert (
        read(tokenizer, row("The bank fell", "no", "profit rose", "yes")) == "[CLS] the bank fell no profit rose [SEP]"
    )


def test_context_is_the_second_text(tokenizer: Any) -> None:
    example = row("Context:\nShares fell\n\nDid shares rose?", "no", context="Shares fell")
    encoding = encode(tokenizer, example, 64)
    assert tokenizer.decode(encoding.ids).endswith("did shares rose? [SEP] shares fell [SEP]")
    first = len(encoding.ids) - 3
    assert encoding.token_types == (0,) * first + (1,) * 3
    assert encoding.context[first:] == ((0, 6), (7, 11), None)
    assert set(encoding.context[:first]) == {None}
    assert not encoding.truncated


def test_first_of_two_texts_may_contain_the_second(tokenizer: Any) -> None:
    assert read(tokenizer, row("shares fell today\n\nshares fell", "yes", context="shares fell")) == (
        "[CLS] shares fell today [SEP] shares fell [SEP]"
    )


def test_tokenizer_without_token_types_gives_none() -> None:
    assert encode(encoder_tokenizer(pairs=False), row("fell", "no"), 64).token_types == ()


def test_only_the_longer_text_is_cut(tokenizer: Any) -> None:
    example = row("Shares fell\n" + "the bank rose " * 9, "no", context="the bank rose " * 9)
    encoding = encode(tokenizer, example, 16)
    assert (len(encoding.ids), encoding.length, encoding.truncated) == (16, 32, True)
    assert tokenizer.decode(encoding.ids).startswith("[CLS] shares fell [SEP] the bank rose the")
