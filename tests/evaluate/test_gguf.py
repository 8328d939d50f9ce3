"""A GGUF file as a contestant: the tiny model in 32 bits gives the answers that it gives in transformers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter, TokenType

from finetune.errors import InputError
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.contestants.gguf import score_choices, sum_answer
from finetune.models.chat_template import render_conversations, render_prompt
from finetune.models.find import find_base
from finetune.models.llama_cpp import GgufModel
from finetune.models.tokenizer import load_tokenizer
from finetune.records import Example
from finetune.scoring.labels import score_labels
from finetune.scoring.pairs import pair_logprobs

from ..conftest import chat
from ..serve.conftest import load

CHOICES = ("bearish", "bullish", "bear", "neutral")


def write_gguf(model: Path, out: Path) -> Path:
    """The tiny model as a GGUF file in 32 bits; llama.cpp expects other rows of queries and keys to be neighbours."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model)
    config, tokenizer = loaded.config, json.loads((model / "tokenizer.json").read_text("utf-8"))
    settings = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    writer = GGUFWriter(out, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    vocabulary = tokenizer["model"]["vocab"]
    special = {one["content"] for one in tokenizer["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    template = model / "chat_template.jinja"
    writer.add_chat_template(template.read_text("utf-8") if template.exists() else settings["chat_template"])
    for name, tensor in loaded.state_dict().items():
        if name != "lm_head.weight":  # the embeddings
            writer.add_tensor(gguf_name(name), interleave(name, tensor.float().numpy(), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def gguf_name(name: str) -> str:
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "model.layers": "blk",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for theirs, ours in names.items():
        name = name.replace(theirs, ours)
    return name


def interleave(name: str, weight: np.ndarray[Any, Any], config: Any) -> np.ndarray[Any, Any]:
    """The rotated halves of each head's queries and keys, pair by pair."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((heads[part] for part in heads if part in name), None)
    if count is None:
        return weight
    halves = weight.reshape(count, 2, weight.shape[0] // count // 2, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


@pytest.fixture(scope="module")
def tiny_gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny_model, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def rows(count: int) -> list[Example]:
    return [
        Example(f"row-{n}", chat(f"Shares of company {n} rose?", "bullish"), "classification", "bullish", CHOICES)
        for n in range(count)
    ]


def test_prompts_have_the_same_ids(tiny_gguf: Path, tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    with GgufModel(tiny_gguf) as model:
        for row in rows(3):
            assert render_prompt(model.tokenizer, row.prompt) == render_prompt(tokenizer, row.prompt)


def test_labels_have_the_same_probabilities(tiny_gguf: Path, tiny_model: Path) -> None:
    expected = score_labels(load(tiny_model), rows(4), batch_size=2)
    with GgufModel(tiny_gguf) as model:
        model.reserve(300, len(CHOICES))
        given = score_choices(model, rows(4), lambda rows: None)
    for one, other in zip(given, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
        assert one.priors == pytest.approx(other.priors, abs=1e-3)
        assert (one.lengths, one.greedy) == (other.lengths, other.greedy)


def test_pairs_have_the_same_probabilities(tiny_gguf: Path, tiny_model: Path) -> None:
    questions = ("Shares rose?", "Costs grew and the outlook fell?")
    pairs = [Example(text, chat(text, "yes, they rose"), "preference", rejected=chat(text, "no")) for text in questions]
    expected = pair_logprobs(load(tiny_model), pairs, batch_size=2)
    with GgufModel(tiny_gguf) as model:
        model.reserve(200, 1)
        given = [[sum_answer(model, one) for one in render_conversations(model.tokenizer, row)] for row in pairs]
    assert given == [pytest.approx(pair, abs=1e-3) for pair in expected]


def test_file_answers_as_the_same_model_of_transformers(
    tiny_gguf: Path, tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    request = EvalRequest(
        *(tiny_adapter, tiny_corpus, tmp_path / "eval"),
        vs=(f"here={tiny_model}", str(tiny_gguf)),
        max_new_tokens=12,
        few_shot=0,
    )
    result = evaluate(request)
    samples = [json.loads(line) for line in (tmp_path / "eval" / "samples.jsonl").read_text("utf-8").splitlines()]
    assert [sample["tiny"] for sample in samples] == [sample["here"] for sample in samples]
    assert {sample["task"] for sample in samples} == {"news", "questions"}
    for task in result.tasks.values():
        assert task.headline["tiny"] == pytest.approx(task.headline["here"])


def test_broken_file_is_refused(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing else")
    (tmp_path / "other.gguf").write_bytes(b"something else")
    for name in ("broken.gguf", "other.gguf"):
        with pytest.raises(InputError, match="cannot be loaded by llama"), GgufModel(tmp_path / name):
            pass
    with pytest.raises(InputError, match="There is no file"):
        evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", vs=(str(tmp_path / "missing.gguf"),)))


def test_missing_library_is_named_before_anything_is_loaded(
    tiny_gguf: Path, tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cyllama" else find_spec(name))
    request = EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", vs=(str(tiny_gguf),), model="not/loaded")
    with pytest.raises(InputError, match=r"pip install 'slmtune\[gguf\]'"):
        evaluate(request)
