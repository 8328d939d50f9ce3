"""Generated answers are those of the model, independent of batches."""

from __future__ import annotations

from dataclasses import replace

import torch

from finetune.models.chat_template import render_answer
from finetune.models.load import LoadedModel
from finetune.records import Message
from finetune.scoring.generation import generate, generate_tokens, trim_answer
from finetune.scoring.inputs import count_common, render_prompts

from .test_labels import examples


def test_generated_answers_do_not_depend_on_the_batch(loaded: LoadedModel) -> None:
    alone = [generate(loaded, [example], batch_size=1, max_new_tokens=8)[0] for example in examples()]
    assert generate(loaded, examples(), batch_size=3, max_new_tokens=8) == alone
    assert any(alone)


def test_code_keeps_the_indentation_of_its_first_line() -> None:
    assert trim_answer("\n    return a\n", "code") == "    return a"
    assert trim_answer("\n    yes \n", "qa") == "yes"


def test_common_beginning_of_prompts_is_computed_once(loaded: LoadedModel) -> None:
    system = Message("system", "Answer in as few words as you can, and only if you are sure.")
    rows = [replace(row, messages=(system, *row.messages), choices=()) for row in examples()]
    alone = [generate(loaded, [row], batch_size=1, max_new_tokens=8)[0] for row in rows]
    read = []
    with (
        loaded.model.get_base_model()
        .get_input_embeddings()
        .register_forward_hook(lambda _, inputs, __: read.append(inputs[0].shape))
    ):
        assert generate(loaded, rows, batch_size=2, max_new_tokens=8) == alone
    prompts = render_prompts(loaded, rows)
    common = count_common(prompts)
    assert read[0] == (1, common)
    assert read[1] == (2, max(map(len, prompts)) - common)


def test_rows_leave_the_batch_when_they_end(loaded: LoadedModel) -> None:
    labels = ["up", "down a little", "down by more than anyone thought"]
    rows = [replace(examples()[0], choices=(label,)) for label in labels]
    batches = []
    with (
        loaded.model.get_base_model()
        .get_input_embeddings()
        .register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
    ):
        assert generate(loaded, rows, batch_size=3, max_new_tokens=1) == labels
    steps = [len(render_answer(loaded.tokenizer, rows[0].prompt, label)) for label in labels]
    assert len(set(steps)) == 3
    assert batches[-max(steps) :] == [sum(step > number for step in steps) for number in range(max(steps))]


def test_sampled_answers_follow_the_seed_and_differ_from_greedy_ones(loaded: LoadedModel) -> None:
    prompts = render_prompts(loaded, examples())
    first, again, other, greedy = (
        generate_tokens(loaded, prompts, batch_size=2, max_new_tokens=8, draw=draw)
        for draw in (*(torch.Generator().manual_seed(seed) for seed in (1, 1, 2)), None)
    )
    assert first == again
    assert first not in (other, greedy)


def test_an_answer_ends_where_it_is_not_to_go_on(loaded: LoadedModel) -> None:
    prompts = render_prompts(loaded, examples())
    whole = generate_tokens(loaded, prompts, batch_size=2, max_new_tokens=8)
    wanted = [lambda answer, most=most: len(answer) < most for most in range(1, len(prompts) + 1)]
    brief = generate_tokens(loaded, prompts, batch_size=2, max_new_tokens=8, goes_on=wanted)
    assert brief == [answer[: number + 1] for number, answer in enumerate(whole)]
