"""Messages → token ids and loss mask: the renderer shared by training, evaluation, serving and merging.

The conversation is rendered with the tokenizer's chat template and split where the assistant's turns begin and end. Each
piece is tokenised separately, so the ids of a prompt are a prefix of the ids of the whole conversation: at inference, the
model gets exactly what it saw in training. Answers carry loss, including their end-of-turn token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from finetune.errors import InputError
from finetune.records import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some templates (Llama 3.2) insert today's date, which would change the rendering from day to day.
TEMPLATE_DATE = "26 Jul 2024"


@dataclass(frozen=True, slots=True)
class Rendering:
    """Token ids of one conversation; `supervised[i]` says whether token i belongs to an answer and carries loss."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]

    @property
    def labels(self) -> list[int]:
        """The ids, with -100 for tokens without loss; the model shifts them."""
        return [token if mask else -100 for token, mask in zip(self.ids, self.supervised, strict=True)]


def render(tokenizer: PreTrainedTokenizerBase, example: Example) -> Rendering:
    """Render a row for training.

    Raises:
        InputError: the chat template rewrites earlier turns, so answers cannot be separated from prompts.
    """
    if example.task == "text":
        return _render_text(tokenizer, example.answer)
    return render_messages(tokenizer, example.messages)


def render_messages(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Rendering:
    """Render a conversation; every assistant turn carries loss."""
    ids: list[int] = []
    supervised: list[bool] = []
    pieces = _pieces(tokenizer, messages)
    encoded = tokenizer([text for text, _ in pieces], add_special_tokens=False)["input_ids"]  # one call: half the time
    for (_, is_answer), piece in zip(pieces, encoded, strict=True):
        ids += piece
        supervised += [is_answer] * len(piece)
    return Rendering(tuple(ids), tuple(supervised))


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids up to the start of the assistant's next turn: a prefix of `render_messages` with an answer added."""
    *earlier, last = _pieces(tokenizer, (*messages, Message("assistant", "-")))
    assert last[1]
    return [token for text, _ in earlier for token in _encode(tokenizer, text)]


def render_answer(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], answer: str) -> list[int]:
    """Token ids of an answer to `messages`, with its end-of-turn token: the continuation of `render_prompt`."""
    *_, (text, _) = _pieces(tokenizer, (*messages, Message("assistant", answer)))
    return _encode(tokenizer, text)


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end an answer: the tokenizer's end of sequence and the end-of-turn token of its template."""
    answer = render_answer(tokenizer, [Message("user", "-")], "-")
    special = set(tokenizer.all_special_ids)
    ends = {tokenizer.eos_token_id, answer[-1] if answer[-1] in special else None}
    return sorted(token for token in ends if token is not None)


def _pieces(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[tuple[str, bool]]:
    """Split the rendered conversation into (text, is answer) pieces; the last piece is the last answer."""
    whole = _apply(tokenizer, messages, open_turn=False)
    pieces: list[tuple[str, bool]] = []
    position = 0
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        start = _prefix_length(_apply(tokenizer, messages[:number], open_turn=True), whole)
        is_last = number + 1 == len(messages)
        end = (
            len(whole) if is_last else _prefix_length(_apply(tokenizer, messages[: number + 1], open_turn=False), whole)
        )
        answer = whole[start:end].rstrip()  # templates put a line break after the end-of-turn token
        if not _ends_with_special(tokenizer, answer):
            answer += str(tokenizer.eos_token)
        pieces += [(whole[position:start], False), (answer, True)]
        position = start + len(whole[start:end].rstrip())
    return [(text, is_answer) for text, is_answer in pieces if text]


def _apply(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, open_turn: bool) -> str:
    conversation = [{"role": message.role, "content": message.content} for message in messages]
    forms = [conversation]
    if conversation[0]["role"] == "system" and len(conversation) > 1:
        # Gemma has no system role: the system message opens the first user turn.
        system, first, *rest = conversation
        forms.append([{"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}, *rest])
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": open_turn, "date_string": TEMPLATE_DATE}
    reason = ""
    for form in forms:
        try:
            return str(tokenizer.apply_chat_template(form, **options))
        except TemplateError as error:
            reason = error.message or type(error).__name__  # the template's own words, without the text of a message
    raise InputError(f"The chat template of this model rejects a conversation: {reason}")


def _prefix_length(part: str, whole: str) -> int:
    if not whole.startswith(part):
        raise InputError(
            "The chat template of this model renders earlier turns differently when later ones follow, so answers cannot "
            "be separated from prompts. Use a tokenizer with a simpler chat template"
        )
    return len(part)


def _ends_with_special(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    return any(text.endswith(token) for token in tokenizer.all_special_tokens if token)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _render_text(tokenizer: PreTrainedTokenizerBase, text: str) -> Rendering:
    start = (
        [tokenizer.bos_token_id]
        if getattr(tokenizer, "add_bos_token", False) and tokenizer.bos_token_id is not None
        else []
    )
    ids = [*start, *_encode(tokenizer, text), tokenizer.eos_token_id]
    return Rendering(tuple(ids), tuple([False] * len(start) + [True] * (len(ids) - len(start))))
