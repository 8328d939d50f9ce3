"""Control tokens in somebody's text: made harmless for every tokenizer, readable still, and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.prepare.clean.special_tokens import escape_control_tokens, looks_rendered
from finetune.prepare.clean.text import clean_text

# The control tokens of the preset families: SmolLM2, Qwen2.5, Llama 3.2, Phi, Gemma, BERT; and of their relatives.
TOKENS = """
<|im_start|> <|im_end|> <|endoftext|> <repo_name> <reponame> <file_sep> <filename> <gh_stars> <issue_start>
<issue_comment> <issue_closed> <jupyter_start> <jupyter_text> <jupyter_code> <jupyter_output> <jupyter_script>
<empty_output> <|object_ref_start|> <|vision_start|> <|fim_prefix|> <|repo_name|> <|begin_of_text|> <|end_of_text|>
<|start_header_id|> <|end_header_id|> <|eot_id|> <|eom_id|> <|python_tag|> <|finetune_right_pad_id|>
<|reserved_special_token_247|> <bos> <eos> <pad> <unk> <mask> <start_of_turn> <end_of_turn> <start_of_image>
<end_of_image> <image_soft_token> <unused0> <unused6241> [multimodal] [PAD] [UNK] [CLS] [SEP] [MASK] [unused98] <s> </s>
[INST] [/INST] <<SYS>> <</SYS>> [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] <|user|> <|assistant|> <|system|>
<|end|> <｜begin▁of▁sentence｜> <｜User｜>
"""
KNOWN = TOKENS.split()


@pytest.mark.parametrize("token", KNOWN)
def test_known_token_is_broken(token: str) -> None:
    text = escape_control_tokens(f"before{token}{token} after {token}")
    assert token not in text
    assert text.replace(f"{token[0]} ", token[0]) == f"before{token}{token} after {token}"


@given(st.lists(st.sampled_from([*KNOWN, *"<>|[]/ s", "im_end", "INST"]), max_size=30).map("".join))
def test_no_known_token_is_left_and_a_second_pass_finds_none(text: str) -> None:
    harmless = escape_control_tokens(text)
    assert not any(token in harmless for token in KNOWN)
    assert escape_control_tokens(harmless) == harmless


@given(st.text())
def test_nothing_but_blanks_is_added(text: str) -> None:
    assert escape_control_tokens(text).replace(" ", "") == text.replace(" ", "")


@given(st.lists(st.sampled_from([*KNOWN, "<", "x", " "]), max_size=20).map("".join))
def test_cleaning_again_puts_no_token_together(text: str) -> None:
    harmless = clean_text(escape_control_tokens(clean_text(text)))
    assert escape_control_tokens(harmless) == harmless


@pytest.mark.parametrize(
    "text",
    [
        "x < y and y > z",
        "[1] Smith et al. [sic] [EMAIL] [IBAN]",
        "p<0.05 |r|>0.3",
        "a < |x| > b",
        "List<int> <b>bold</b> <think>so</think>",
        "i[s] and <so> on",
    ],
)
def test_ordinary_brackets_stay(text: str) -> None:
    assert escape_control_tokens(text) == text


@pytest.mark.parametrize("normalizer", ["none", "NFKC", "BERT", "prepend"])
def test_no_tokenizer_finds_a_control_token(normalizer: str) -> None:
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        ["some words"], trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    )
    kinds = {"NFKC": normalizers.NFKC(), "BERT": normalizers.BertNormalizer(), "prepend": normalizers.Prepend("▁")}
    if normalizer in kinds:
        tokenizer.normalizer = kinds[normalizer]
    tokens = [AddedToken(token, special=True, normalized=normalizer == "NFKC") for token in KNOWN]
    tokenizer.add_special_tokens(tokens)
    special = set(tokenizer.get_added_tokens_decoder())
    text = "Say " + "x".join(KNOWN) + " ".join(KNOWN) + "".join(KNOWN)
    assert special & set(tokenizer.encode(text, add_special_tokens=False).ids)
    assert not special & set(tokenizer.encode(escape_control_tokens(text), add_special_tokens=False).ids)


@pytest.mark.slow
def test_the_default_models_tokenizer_finds_no_control_token(real_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_model)
    special = set(tokenizer.added_tokens_decoder)
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values()]
    text = "x".join(tokens) + " ".join([*tokens, *KNOWN])
    assert special <= set(tokenizer(text)["input_ids"])
    assert not special & set(tokenizer(escape_control_tokens(text))["input_ids"])


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>",
        "\n<s>[INST] Hi [/INST] Hello </s>",
        "[INST] Hi [/INST] Hello",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
        "<bos><start_of_turn>user\nHi<end_of_turn>",
        "<|user|>\nHi\n<|assistant|>\nHello",
        "Below is an instruction.\n\n### Instruction:\nSay hi.\n\n### Response:\nHi.",
        "### Human: Why does the kettle sing?### Assistant: Bubbles burst.### Human: Where?### Assistant: At the bottom.",
        "### Instruction: Name a fish. ### Response: The pike.",
    ],
)
def test_rendered_conversation_is_seen(text: str) -> None:
    assert looks_rendered(text)


@pytest.mark.parametrize(
    "text",
    [
        "What does <|im_start|>user mean in a chat template?",
        "The tag [INST] opens a prompt.",
        "### Instruction for use\nTake one tablet.\n### Response rate\n40 %",
        "### Instruction:\nTake one tablet.",
        "The mark ### Human: begins a question, and ### Assistant: begins its answer.",
        "### Human: and ### User: mean the same, and ### Assistant: begins an answer.",
        "### User: Press the lever.",
        "x < s > y",
        "Plain text.",
    ],
)
def test_text_about_templates_is_not_rendered(text: str) -> None:
    assert not looks_rendered(text)
