"""The tokenizer of a model as the metadata of a GGUF file: its tokens, merges, special tokens and chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gguf
from gguf import TokenType
from transformers import PreTrainedTokenizerBase

from finetune.errors import InputError
from finetune.models.chat_template import TEMPLATE_DATE, end_of_turn_ids, render_prompt
from finetune.records import Message

# How a text is split before tokens are merged: the regular expressions of tokenizer.json (published by each family of models)
# and the name under which llama.cpp has the same rule.
SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": (
        "llama-bpe"
    ),
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": (
        "qwen2"
    ),
}


@dataclass(frozen=True)
class Token:
    """A token, what kind it is, and its score, which decides what is merged first."""

    text: str
    kind: TokenType = TokenType.NORMAL
    score: float = 0.0


@dataclass(frozen=True)
class Vocabulary:
    """Everything that llama.cpp needs to tokenise; a vocabulary of SentencePiece has scores instead of merges."""

    model: str
    split: str
    tokens: tuple[Token, ...]
    merges: tuple[str, ...]
    has_space_prefix: bool


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> Vocabulary:
    """The vocabulary of a tokenizer, with as many tokens as the model has embeddings.

    Raises:
        InputError: llama.cpp does not have this kind of tokenizer.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    state: dict[str, Any] = {} if backend is None else json.loads(backend.to_str())
    model = state.get("model", {})
    if model.get("type") != "BPE":
        raise InputError(
            f"The tokenizer ({type(tokenizer).__name__}) is not of the kind that can be exported to GGUF: byte-pair encoding"
        )
    pairs = [pair if isinstance(pair, list) else pair.split(" ", 1) for pair in model["merges"]]
    if model.get("byte_fallback"):
        ranks: dict[str, float] = {}
        for number, pair in enumerate(pairs):
            ranks.setdefault("".join(pair), -float(number))
        tokens = _tokens(tokenizer, state, size, ranks)
        return Vocabulary("llama", "default", tokens, (), _adds_space(state))
    merges = tuple(" ".join(pair) for pair in pairs)
    return Vocabulary(
        "gpt2", _split_name(state.get("pre_tokenizer")), _tokens(tokenizer, state, size, {}), merges, False
    )


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Write the tokenizer, its chat template, and the tokens that end a turn."""
    vocabulary = read_vocabulary(tokenizer, size)
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list([token.text for token in vocabulary.tokens])
    writer.add_token_types([token.kind for token in vocabulary.tokens])
    if vocabulary.model == "llama":
        writer.add_token_scores([token.score for token in vocabulary.tokens])
        writer.add_add_space_prefix(vocabulary.has_space_prefix)
    else:
        writer.add_token_merges(list(vocabulary.merges))
    eos: Any = tokenizer.eos_token_id
    writer.add_eos_token_id(eos)
    for turn_end in set(end_of_turn_ids(tokenizer)) - {eos}:
        writer.add_eot_token_id(turn_end)
    special: dict[str, Any] = {
        "bos": tokenizer.bos_token_id,
        "pad": tokenizer.pad_token_id,
        "unk": tokenizer.unk_token_id,
    }
    for add, name in (
        (writer.add_bos_token_id, "bos"),
        (writer.add_pad_token_id, "pad"),
        (writer.add_unk_token_id, "unk"),
    ):
        if special[name] is not None:
            add(special[name])
    writer.add_add_bos_token(adds_bos(tokenizer))
    writer.add_add_eos_token(False)
    writer.add_chat_template(fixed_template(tokenizer))


def fixed_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template, with the date of training where it would put today's."""
    template = str(tokenizer.chat_template)
    return f'{{%- set date_string = "{TEMPLATE_DATE}" -%}}\n{template}' if "date_string" in template else template


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a text begins with a token that the tokenizer adds; llama.cpp then leaves out that of the chat template."""
    ids: list[int] = tokenizer("a")["input_ids"]
    prompt = render_prompt(tokenizer, [Message("user", "-")])
    return tokenizer.bos_token_id is not None and ids[0] == prompt[0] == tokenizer.bos_token_id


def _tokens(
    tokenizer: PreTrainedTokenizerBase, state: dict[str, Any], size: int, ranks: dict[str, float]
) -> tuple[Token, ...]:
    """The tokens in the order of their ids; ids without a token get one that never occurs."""
    words: dict[str, int] = state["model"]["vocab"]
    unknown = state["model"].get("unk_token")
    tokens = {number: Token(text, _kind(text, unknown, ranks), ranks.get(text, 0.0)) for text, number in words.items()}
    special = set(tokenizer.all_special_ids)
    for added in state["added_tokens"]:
        is_control = added["special"] or added["id"] in special
        kind = TokenType.CONTROL if is_control else TokenType.USER_DEFINED
        if added["content"] != unknown or not ranks:
            tokens[added["id"]] = Token(added["content"], kind)
    return tuple(tokens.get(number) or Token(f"[PAD{number}]", TokenType.UNUSED) for number in range(size))


def _kind(text: str, unknown: str | None, ranks: dict[str, float]) -> TokenType:
    if not ranks:
        return TokenType.NORMAL
    if text == unknown:
        return TokenType.UNKNOWN
    return TokenType.BYTE if len(text) == 6 and text.startswith("<0x") and text.endswith(">") else TokenType.NORMAL


def _split_name(rule: dict[str, Any] | None) -> str:
    """The name in llama.cpp of how tokenizer.json splits texts."""
    steps = rule["pretokenizers"] if rule and rule["type"] == "Sequence" else [rule or {}]
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0]["add_prefix_space"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        name = SPLITS.get(steps[0]["pattern"].get("Regex", ""))
        if name is not None:
            return name
    raise InputError(
        f"The tokenizer splits texts in a way that the export to GGUF does not know ({', '.join(map(str, kinds))}). It knows "
        "those of GPT-2, SmolLM2, Llama 3, Qwen2 and Gemma"
    )


def _adds_space(state: dict[str, Any]) -> bool:
    """Whether a tokenizer of SentencePiece puts a space before a text."""
    parts = [state.get("normalizer"), state.get("pre_tokenizer")]
    steps = [
        step for part in parts if part for step in (part.get("normalizers") or part.get("pretokenizers") or [part])
    ]
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme") != "never")
        for step in steps
    )
