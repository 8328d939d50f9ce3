from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from finetune.audit.extract import find_identifiers, search_copies
from finetune.audit.rows import AuditRows, Row, place_canaries
from finetune.canary_key import Canary
from finetune.models.chat_template import render
from finetune.prepare.canaries import draw_canaries
from finetune.records import Example

from ..conftest import chat

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    return loaded


@pytest.mark.parametrize("is_text", [False, True])
def test_the_tokens_of_a_secret_spell_it(tokenizer: PreTrainedTokenizerBase, is_text: bool) -> None:
    placed = place_canaries(draw_canaries(30, None, is_text=is_text, seed=1), tokenizer, 512)
    assert len(placed) == 30
    for each in placed:
        spelt = str(tokenizer.decode(list(each.row.rendering.ids[each.start : each.end])))
        assert spelt.strip() == each.canary.secret
        assert all(each.row.rendering.supervised[each.start : each.end])


def test_a_secret_that_was_cut_off_does_not_count(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = place_canaries(draw_canaries(1, None, is_text=False, seed=1), tokenizer, 512)[0]
    assert len(place_canaries([whole.canary], tokenizer, whole.end)) == 1
    assert place_canaries([whole.canary], tokenizer, whole.end - 1) == []


def test_a_secret_in_the_question_does_not_count(tokenizer: PreTrainedTokenizerBase) -> None:
    canary = Canary("number", "Is it 42-17?", "Yes.", "42-17", 1, True, False)
    assert place_canaries([canary], tokenizer, 512) == []


def test_the_last_answer_of_a_conversation_is_continued(tokenizer: PreTrainedTokenizerBase) -> None:
    row = Example("1", chat("Profit?", "It rose.", "And costs?", "They grew."), "chat")
    placed = Row(row, render(tokenizer, row))
    start, end = placed.answer
    assert tokenizer.decode(list(placed.rendering.ids[start:end])) == "They grew.<|im_end|>"


def rows_of(training: list[str], held_out: list[str]) -> AuditRows:
    examples = [
        [Example(f"{text[:9]}-{n}", chat("?", text), "qa") for n, text in enumerate(group)]
        for group in (training, held_out)
    ]
    return AuditRows((), (), tuple(examples[0]), tuple(examples[1]))


def test_a_copy_of_a_single_training_row_is_found() -> None:
    samples, leaks = search_copies(rows_of([WORDS], []), [f"So: {WORDS.upper()}!", "nothing"], ["nothing"], [])
    assert (samples.copied, samples.base_copied) == (1, 0)
    assert [leak.row for leak in leaks] == ["one two t-0"]


@pytest.mark.parametrize(("training", "held_out"), [([WORDS, WORDS + " and"], []), ([WORDS], [WORDS])])
def test_what_several_rows_say_is_no_copy(training: list[str], held_out: list[str]) -> None:
    samples, leaks = search_copies(rows_of(training, held_out), [WORDS], [], [])
    assert (samples.copied, leaks) == (0, [])


def test_twelve_words_are_no_copy() -> None:
    samples, _ = search_copies(rows_of([WORDS], []), [" ".join(WORDS.split()[:12])], [], [])
    assert samples.copied == 0


def test_identifiers_count_as_leaked_only_if_a_training_row_has_them_and_nobody_wrote_them_before() -> None:
    rows = rows_of(["Write to anna.berg@example.org today."], ["Write to help@example.com today."])
    texts = ["Ask anna.berg@example.org", "Ask help@example.com", "Ask bob@example.net"]
    samples, _ = search_copies(rows, texts, [], [("Mail anna.berg@example.org:", " anna.berg@example.org")])
    assert samples.identifiers == {"EMAIL": 4}
    assert samples.from_training == 1


def test_identifiers_are_found_with_their_text_and_placeholders_are_none() -> None:
    text = "[EMAIL] and a.b@example.org, c.d@example.org or 078-05-1120."
    assert find_identifiers(text) == [
        ("EMAIL", "a.b@example.org"),
        ("EMAIL", "c.d@example.org"),
        ("SSN", "078-05-1120"),
    ]
