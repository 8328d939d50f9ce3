"""Escapes control tokens of chat models in texts, where they must have no effect: `<|im_end|>` would end a turn.

Tokenizers search for their control tokens first, in every text. A space after the first character keeps the text readable
and hides the token from every tokenizer, whatever it normalises, because no control token contains a space. (A look-alike
such as a full-width bar would not work: NFKC, which some tokenizers apply, turns it back.)

`<think>` and `<tool_call>` stay: they mark parts of an answer, end no turn, and reasoning data is full of them.
"""

from __future__ import annotations

import re
from itertools import pairwise

# Beside the pattern of ChatML, Llama 3, Phi and others: Llama 2 and Mistral, Gemma, BERT, and SmolLM2's code tokens.
NAMES = (
    "s pad unk bos eos mask cls sep start_of_turn end_of_turn start_of_image end_of_image image_soft_token "
    "repo_name reponame file_sep filename gh_stars issue_start issue_comment issue_closed jupyter_start jupyter_text "
    "jupyter_code jupyter_output jupyter_script empty_output fim_prefix fim_middle fim_suffix fim_pad "
    r"unused\d{1,4} extra_id_\d{1,4} reserved_special_token_\d{1,4}"
)
BRACKETED = (
    "INST CLS SEP PAD UNK MASK BOS EOS TOOL_CALLS AVAILABLE_TOOLS TOOL_RESULTS TOOL_CONTENT SYSTEM_PROMPT IMG IMG_BREAK "
    r"IMG_END PREFIX MIDDLE SUFFIX control_\d{1,4} unused\d{1,4} multimodal"
)
CONTROL = re.compile(
    r"([<\[])("
    r"(?<=<)\|[^\s<>|]{1,64}\|>"  # <|im_start|>
    r"|(?<=<)\uff5c[^\s<>\uff5c]{1,64}\uff5c>"  # the same with full-width bars: DeepSeek
    rf"|(?<=<)/?(?:{NAMES.replace(' ', '|')})>"
    rf"|(?<=\[)/?(?:{BRACKETED.replace(' ', '|')})\]"
    r"|(?<=<)</?SYS>>"
    r")"
)
# A conversation that a chat template has written: its first token, or a turn's head at the beginning of a line.
RENDERED = re.compile(
    r"\A\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|startoftext\|>|<\uff5cbegin|\[INST\]|\[gMASK\])"
    r"|^[ \t]*(?:<\|im_start\|>(?:system|user|assistant|tool)\b|<\|start_header_id\|>\w|<start_of_turn>(?:user|model)\b"
    r"|<\|(?:system|user|assistant)\|>)",
    re.M,
)
ALPACA_QUESTION = re.compile(r"^### ?(?:Instruction|Human|User):", re.M)
ALPACA_ANSWER = re.compile(r"^### ?(?:Response|Assistant|Output):", re.M)
ALPACA_TURN = re.compile(r"### ?(?:(Instruction|Human|User)|Response|Assistant|Output):")


def escape_control_tokens(text: str) -> str:
    """The text with its control tokens escaped: `<|im_end|>` as `< |im_end|>`.

    Must run last, after any step that could produce a token: `clean_text` removes characters and decodes entities.
    """
    return CONTROL.sub(r"\1 \2", text) if "<" in text or "[" in text else text


def looks_rendered(text: str) -> bool:
    """Whether the text is a conversation already rendered with a chat template.

    Training would render it again, with two beginnings of sequence and turns inside a turn. A token mentioned in the
    middle of a sentence does not count.
    """
    if "<" not in text and "[" not in text and "###" not in text:
        return False
    return RENDERED.search(text) is not None or ("###" in text and _has_alpaca_turns(text))


def _has_alpaca_turns(text: str) -> bool:
    """Whether a question and an answer begin with their marks, on lines of their own or, from the first mark on, in turn."""
    question = ALPACA_QUESTION.search(text)
    if question is None:
        return False
    if ALPACA_ANSWER.search(text, question.end()):
        return True
    asked = [mark[1] is not None for mark in ALPACA_TURN.finditer(text)]
    return question.start() == 0 and len(asked) > 1 and all(before != after for before, after in pairwise(asked))
