"""Conversations with tools: rendered whole by templates that have tools, and refused by name for those that have none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Corpus
from finetune.cli.render.corpus import render_view
from finetune.cli.render.mask import render_mask
from finetune.corpus.lengths import token_length
from finetune.corpus.mask import show_mask
from finetune.corpus.store import read_split
from finetune.corpus.view import show_corpus
from finetune.errors import InputError
from finetune.evaluate import EvalRequest, evaluate
from finetune.models.chat_template import render, render_answer, render_prompt
from finetune.models.find import find_base
from finetune.models.presets import PHI2_TEMPLATE, PLAIN_TEMPLATE
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.records import Example, Message, ToolCall
from finetune.train import TrainRequest, train
from finetune.train.run import plan_training

from ..corpora import write_corpus

# A template with tools, in the manner of most: definitions in front, calls and results in tags.
WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\nTools:{% for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}<|im_end|>\n"
    "{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function.name }} {{ ARGUMENTS }}</call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OBJECTS = WITH_TOOLS.replace("ARGUMENTS", "call.function.arguments | tojson")
TEXTS = WITH_TOOLS.replace("ARGUMENTS", "'' + call.function.arguments")  # takes arguments as text only
CHECKED = "{% if IDS | length != 9 %}{{ raise_exception('An id has nine characters') }}{% endif %}"
SHORT_IDS = OBJECTS.replace("<call>", CHECKED.replace("IDS", "call.id") + "<call>").replace(
    "<|im_start|>{{ m.role }}",
    "{% if m.role == 'tool' %}" + CHECKED.replace("IDS", "m.tool_call_id") + "{% endif %}<|im_start|>{{ m.role }}",
)
WITHOUT_TEXT = OBJECTS.replace("{{ m.content }}", "{% if not m.tool_calls %}{{ m.content }}{% endif %}")  # as Llama 3.2
WITHOUT_RESULTS = OBJECTS.replace("{{ m.content }}", "{% if m.role != 'tool' %}{{ m.content }}{% endif %}")
TOOLS = json.dumps([{"type": "function", "function": {"name": "tide", "description": "High tide.", "parameters": {}}}])
CALL = ToolCall("tide", '{"town": "Brest"}', "c1")
TURNS = (
    Message("user", "When is high tide?"),
    Message("assistant", "I look.", (CALL,)),
    Message("tool", "17:40", tool_call_id="c1", name="tide"),
    Message("assistant", "At 17:40."),
)
ROW = Example("r/1", TURNS, "chat", source="r", tools=TOOLS)
CALLING = replace(ROW, id="r/2", messages=TURNS[:2])


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model, find_base(str(tiny_model)))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rows = [ROW, CALLING, replace(ROW, id="r/3", tools=None), Example("r/4", TURNS[::3], "chat", source="r")]
    return write_corpus(tmp_path / "corpus", {"train": rows, "test": rows[:2]}).path


def give_template(model: Path, template: str, folder: Path) -> Path:
    """A copy of a model folder with another chat template."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder


@pytest.mark.parametrize("template", [OBJECTS, TEXTS, SHORT_IDS])
def test_calls_carry_loss_and_results_do_not(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    row = render(tokenizer, ROW)
    learnt = tokenizer.decode([token for token in row.labels if token != -100])
    assert learnt == 'I look.<call>tide {"town": "Brest"}</call><|im_end|>At 17:40.<|im_end|>'
    text = tokenizer.decode(row.ids)
    assert f"Tools:\n{TOOLS[1:-1]}<|im_end|>" in text
    assert "<|im_start|>tool\n17:40<|im_end|>" in text


def test_prompt_and_calling_answer_join_to_the_training_row(tokenizer: Any) -> None:
    tokenizer.chat_template = OBJECTS
    prompt, answer = CALLING.prompt, CALLING.messages[-1]
    joined = render_prompt(tokenizer, prompt, TOOLS) + render_answer(tokenizer, prompt, answer, TOOLS)
    assert joined == list(render(tokenizer, CALLING).ids)


@pytest.mark.parametrize(
    ("template", "missing"),
    [
        (None, "the tools and the tool calls"),
        (PLAIN_TEMPLATE, "the tools and the tool calls"),
        (PHI2_TEMPLATE, "the tools and the tool calls"),
        (WITHOUT_RESULTS, "the results of tools"),
        (WITHOUT_TEXT, "the text beside tool calls"),
        (
            "{{ raise_exception('No tools') }}",
            "the tools, the tool calls, the text beside tool calls and the results of tools",
        ),
    ],
)
def test_template_that_leaves_something_out_is_refused(tokenizer: Any, template: str | None, missing: str) -> None:
    tokenizer.chat_template = template or tokenizer.chat_template
    with pytest.raises(
        InputError, match=f"leaves out {missing}, which row r/1 has. Choose a model whose template has tools"
    ):
        render(tokenizer, ROW)
    with pytest.raises(InputError, match="leaves out"):
        token_length(tokenizer)(ROW)


def test_calls_without_text_need_no_text_beside_them(tokenizer: Any) -> None:
    tokenizer.chat_template = WITHOUT_TEXT
    silent = replace(TURNS[1], content="")
    assert render(tokenizer, replace(ROW, messages=(TURNS[0], silent, *TURNS[2:]))).ids


def test_template_without_tools_renders_rows_without_them(tokenizer: Any) -> None:
    assert render(tokenizer, replace(ROW, messages=TURNS[::3], tools=None)).ids
    tokenizer.chat_template = WITHOUT_RESULTS
    assert render(tokenizer, CALLING).ids


# --- commands ---------------------------------------------------------------------------------------------------------


def test_train_refuses_before_it_loads_weights(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    model = give_template(tiny_model, PLAIN_TEMPLATE, tmp_path / "plain")
    weights = model / "model.safetensors"
    header = int.from_bytes(weights.read_bytes()[:8], "little")
    weights.write_bytes(weights.read_bytes()[: 8 + header])  # with nothing to load
    for run in (train, plan_training):
        with pytest.raises(InputError, match="leaves out the tools and the tool calls, which row r/1 has"):
            run(TrainRequest(corpus, tmp_path / "adapter", AdapterRecipe(model=str(model))))


def test_show_counts_words_if_the_template_has_no_tools(tiny_model: Path, corpus: Path) -> None:
    view = show_corpus(corpus, model=str(tiny_model), samples=4)
    assert view.lengths is not None
    assert view.lengths.unit == "words"
    assert "leaves out the tools" in view.notes[0]
    told = "    tools:     tide\n    user:      When is high tide?\n    assistant: I look.\n"
    told += '               tide({"town": "Brest"})'
    assert f"{told}\n    tool:      17:40" in render_view(view)


def test_mask_shows_calls_and_results(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    model = give_template(tiny_model, OBJECTS, tmp_path / "tools")
    text = render_mask(show_mask(corpus, model=str(model), samples=4))
    assert '⟦I look.<call>tide {"town": "Brest"}</call><|im_end|>⟧\n    <|im_start|>tool\n    17:40<|im_end|>' in text


def test_rows_with_tools_are_trained_on_and_scored(tiny_model: Path, corpus: Path, tmp_path: Path) -> None:
    model = give_template(tiny_model, OBJECTS, tmp_path / "tools")
    recipe = AdapterRecipe(model=str(model), max_steps=2, quantization="none")
    train(TrainRequest(corpus, tmp_path / "adapter", recipe))
    request = EvalRequest(tmp_path / "adapter", corpus, tmp_path / "report", max_new_tokens=4, forgetting=False)
    evaluate(replace(request, allow_train_overlap=True))
    lines = (tmp_path / "report" / "samples.jsonl").read_text("utf-8").splitlines()
    references = {sample["id"]: sample["reference"] for sample in map(json.loads, lines)}
    assert references == {"r/1": "At 17:40.", "r/2": 'I look.<call>tide {"town": "Brest"}</call>'}
    assert "tide(" in (tmp_path / "report" / "report.html").read_text("utf-8")


def test_eval_refuses_before_it_loads_weights(tiny_adapter: Path, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves out the tools and the tool calls, which row r/"):
        evaluate(EvalRequest(tiny_adapter, corpus, tmp_path / "report"))


def test_rows_with_tools_come_back_whole(corpus: Path) -> None:
    rows = read_split(Corpus.open(corpus), "train")
    assert rows[:2] == [ROW, CALLING]
    assert rows[3].messages == TURNS[::3]


@pytest.mark.slow
def test_the_default_model_has_no_tools_and_says_so(real_model: Path) -> None:
    tokenizer = load_tokenizer(real_model, find_base(str(real_model)))
    with pytest.raises(InputError, match="leaves out the tools"):
        render(tokenizer, ROW)
