"""The one renderer: prompts are prefixes of conversations, and only answers carry loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.errors import InputError
from finetune.models.chat_template import end_of_turn_ids, render, render_answer, render_messages, render_prompt
from finetune.models.find import find_base
from finetune.models.presets import PHI2_TEMPLATE, PLAIN_TEMPLATE
from finetune.models.tokenizer import load_tokenizer
from finetune.records import Example, Message

from ..conftest import chat

SYSTEM = Message("system", "Is it good?")
# The relevant behaviour of Gemma's template: no system role.
WITHOUT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_DATE = "{{ date_string }} {% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>\n{% endfor %}" + (
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model, find_base(str(tiny_model)))


@pytest.mark.parametrize("template", [None, PLAIN_TEMPLATE, PHI2_TEMPLATE, WITHOUT_SYSTEM, WITH_DATE])
def test_prompt_and_answer_join_to_the_training_row(tokenizer: Any, template: str | None) -> None:
    tokenizer.chat_template = template or tokenizer.chat_template
    prompt = (SYSTEM, *chat("Profit rose", "good", "Costs grew"))
    whole = render_messages(tokenizer, (*prompt, Message("assistant", "bad")))
    question, answer = render_prompt(tokenizer, prompt), render_answer(tokenizer, prompt, "bad")
    assert list(whole.ids) == question + answer
    assert answer[-1] == tokenizer.eos_token_id
    assert whole.supervised[len(question) :] == (True,) * len(answer)


def test_only_answers_and_their_end_of_turn_carry_loss(tokenizer: Any) -> None:
    row = render_messages(tokenizer, chat("Profit rose", "good", "Costs grew", "bad"))
    taught = [token for token in row.labels if token != -100]
    assert tokenizer.decode(taught) == "good<|im_end|>bad<|im_end|>"


def test_template_output_is_what_is_tokenised(tokenizer: Any) -> None:
    messages = chat("Profit rose", "good")
    row = render_messages(tokenizer, messages)
    text = tokenizer.apply_chat_template([{"role": m.role, "content": m.content} for m in messages], tokenize=False)
    assert tokenizer.decode(row.ids) == text.rstrip("\n")


def test_system_turn_opens_the_question_if_the_template_has_no_system_role(tokenizer: Any) -> None:
    tokenizer.chat_template = WITHOUT_SYSTEM
    text = tokenizer.decode(render_prompt(tokenizer, (SYSTEM, *chat("Profit rose"))))
    assert text == "<|im_start|>user\nIs it good?\n\nProfit rose<|im_end|>\n<|im_start|>assistant\n"


def test_template_that_refuses_a_conversation_in_every_form_is_named(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('Roles must alternate') }}"
    for messages in ((SYSTEM, *chat("Profit rose")), chat("Profit rose")):
        with pytest.raises(InputError, match="rejects a conversation: Roles must alternate"):
            render_prompt(tokenizer, messages)


def test_template_date_does_not_change_from_day_to_day(tokenizer: Any) -> None:
    tokenizer.chat_template = WITH_DATE
    assert tokenizer.decode(render_prompt(tokenizer, chat("Hi"))).startswith("26 Jul 2024")


def test_text_row_is_supervised_throughout_and_ends(tokenizer: Any) -> None:
    row = render(tokenizer, Example("1", (Message("assistant", "Profit rose."),), "text"))
    assert tokenizer.decode(row.ids) == "Profit rose.<|im_end|>"
    assert all(row.supervised)


def test_end_of_turn_is_the_end_of_answers_in_the_template(tokenizer: Any) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "<|endoftext|>")
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    assert set(end_of_turn_ids(tokenizer)) == ends
