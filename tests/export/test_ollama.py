"""A Modelfile makes Ollama render conversations as the chat template does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Export
from finetune.errors import InputError
from finetune.export import ExportRequest, export_artifact
from finetune.export.gguf.ollama import ollama_files
from finetune.models.chat_template import render_text
from finetune.models.find import BaseModel
from finetune.models.presets import PHI2_TEMPLATE, PLAIN_TEMPLATE
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe.options import ExportOptions
from finetune.records import Example, Message

from ..conftest import CHATML, chat

DEFAULT = "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe \"kind\" {{.}}<|im_end|>\n' }}{% endif %}"
TRIMMED = (
    "{{ bos_token }}{% for m in messages %}{{ '[' + m.role + ']\n\n' + m.content | trim + eos_token }}{% endfor %}"
)
WITHOUT_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
TEMPLATES = {
    "ChatML": CHATML,
    "default system message": DEFAULT + CHATML,
    "begin of text": TRIMMED + "{% if add_generation_prompt %}{{ '[assistant]\n\n' }}{% endif %}",
    "no system role": WITHOUT_SYSTEM,
    "plain": PLAIN_TEMPLATE,
    "Phi-2": PHI2_TEMPLATE,
}
CONVERSATIONS = (
    chat("Up?"),
    chat("Up?", "Yes.", "Why?", "Profit\n\nrose.", "And?"),
    (Message("system", "Be brief."), *chat("Up?", "Yes.", "Why?")),
)


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model, BaseModel("tiny", tiny_model, "local", ""))


def run_template(template: str, messages: tuple[Message, ...]) -> str:
    """What Ollama makes of a template that consists of quoted texts, one condition and one loop over the messages."""
    system = next((message.content for message in messages if message.role == "system"), "")
    head, loop = template.split("{{ range .Messages }}")
    with_system, without = head.removeprefix("{{ if .System }}").removesuffix("{{ end }}").split("{{ else }}")
    match = re.fullmatch(
        r'\{\{ if eq \.Role "user" \}\}(.*)\{\{ else if eq \.Role "assistant" \}\}(.*)\{\{ end \}\}\{\{ end \}\}', loop
    )
    assert match is not None
    user, assistant = match.groups()
    text = fill(with_system if system else without, system)
    for message in messages:
        if message.role != "system":
            text += fill(user if message.role == "user" else assistant, message.content)
    return text


def fill(part: str, text: str) -> str:
    pieces = re.findall(r'\{\{ (\.System|\.Content|"(?:[^"\\]|\\.)*") \}\}', part)
    assert "".join(f"{{{{ {piece} }}}}" for piece in pieces) == part
    return "".join(json.loads(piece) if piece.startswith('"') else text for piece in pieces)


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_ollama_renders_what_the_chat_template_renders(template: str, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = template
    rows = [Example(str(n), (*turns, Message("assistant", "-")), "chat") for n, turns in enumerate(CONVERSATIONS)]
    files = ollama_files("model.gguf", tokenizer, rows)
    lines = files["Modelfile"].splitlines()
    assert lines[0] == "FROM ./model.gguf"
    assert 'PARAMETER stop "<|im_end|>"' in lines
    written = lines[1].removeprefix('TEMPLATE """').removesuffix('"""')
    assert '"""' not in written
    assert files["template"] == written
    assert "<|im_end|>" in json.loads(files["params"])["stop"]
    for turns in CONVERSATIONS:
        assert run_template(written, turns) == render_text(tokenizer, turns)


def test_template_that_ollama_cannot_follow_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML.replace("'<|im_start|>' +", "loop.index | string + '<|im_start|>' +")
    rows = [Example("1", chat("Up?", "Yes.", "Why?", "-"), "chat")]
    with pytest.raises(InputError, match="1 of 1 conversations differently"):
        ollama_files("model.gguf", tokenizer, rows)


def test_export_writes_a_modelfile_beside_the_file(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    options = ExportOptions(quantization="f16", ollama=True)
    result = export_artifact(ExportRequest(tiny_adapter, tmp_path / "out", options, tiny_corpus))
    assert set(Export.open(result.path).manifest["files"]) == {"Modelfile", "model-f16.gguf", "params", "template"}
    assert (result.path / "Modelfile").read_text("utf-8").startswith("FROM ./model-f16.gguf\n")
    assert result.commands[0].startswith("ollama create")
