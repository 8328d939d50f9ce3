"""Messages → token ids and loss mask: the renderer shared by training, evaluation, serving and merging.

The conversation is rendered with the tokenizer's chat template and split where the assistant's turns begin and end. Each
piece is tokenised separately, so the ids of a prompt are a prefix of the ids of the whole conversation: at inference, the
model gets exactly what it saw in training. Answers carry loss, including their tool calls and end-of-turn token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from finetune.errors import InputError
from finetune.records import Example, Message, ToolCall

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Some templates (Llama 3.2) insert today's date, which would change the rendering from day to day.
TEMPLATE_DATE = "26 Jul 2024"
# A conversation with everything that has to do with tools, in words that no template contains.
PROBE_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "probed_tool",
                "description": "A tool.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]
)
PROBE = (
    Message("user", "-"),
    Message("assistant", "probed_text", (ToolCall("probed_call", '{"probed_key": "probed_value"}', "probe0001"),)),
    Message("tool", "probed_result", tool_call_id="probe0001", name="probed_call"),
    Message("assistant", "-"),
)
PROBED = {
    "the tools": ("probed_tool",),
    "the tool calls": ("probed_call", "probed_key", "probed_value"),
    "the text beside tool calls": ("probed_text",),
    "the results of tools": ("probed_result",),
}


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
    """Render a row for training; of a pair, the conversation with the preferred answer.

    Raises:
        InputError: the chat template rewrites earlier turns, so answers cannot be separated from prompts, or it leaves out
            tools that the row uses.
    """
    return render_conversations(tokenizer, example)[0]


def render_conversations(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[Rendering, ...]:
    """Render the conversation of a row and, of a pair, the one with the rejected answer.

    In rows of preference tuning, only what follows the prompt carries loss.

    Raises:
        InputError: see `render`.
    """
    if example.task == "text":
        return (_render_text(tokenizer, example.answer),)
    if example.uses_tools:
        require_tools(tokenizer, example)
    start = len(example.prompt) if example.task == "preference" else 0
    return tuple(
        render_messages(tokenizer, messages, example.tools, learn_from=start) for messages in example.conversations
    )


def render_messages(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None, *, learn_from: int = 0
) -> Rendering:
    """Render a conversation; every assistant turn from number `learn_from` on carries loss."""
    ids: list[int] = []
    supervised: list[bool] = []
    pieces = _pieces(tokenizer, messages, tools, learn_from)
    encoded = tokenizer([text for text, _ in pieces], add_special_tokens=False)["input_ids"]  # one call: half the time
    for (_, is_answer), piece in zip(pieces, encoded, strict=True):
        ids += piece
        supervised += [is_answer] * len(piece)
    return Rendering(tuple(ids), tuple(supervised))


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None
) -> list[int]:
    """Token ids up to the start of the assistant's next turn: a prefix of `render_messages` with an answer added."""
    *earlier, last = _pieces(tokenizer, (*messages, Message("assistant", "-")), tools)
    assert last[1]
    return [token for text, _ in earlier for token in _encode(tokenizer, text)]


def render_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None) -> str:
    """The text up to the start of the assistant's next turn, of which `render_prompt` gives the ids."""
    return _apply(tokenizer, messages, tools, open_turn=True)


def render_answer(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    answer: str | Message,
    tools: str | None = None,
) -> list[int]:
    """Token ids of an answer to `messages`, with its end-of-turn token: the continuation of `render_prompt`."""
    turn = Message("assistant", answer) if isinstance(answer, str) else answer
    *_, (text, _) = _pieces(tokenizer, (*messages, turn), tools)
    return _encode(tokenizer, text)


def require_tools(tokenizer: PreTrainedTokenizerBase, example: Example) -> None:
    """Require that the chat template renders what a row uses: tools, tool calls or their results.

    Raises:
        InputError: it leaves one out, so the model would learn from an incomplete conversation; names the row by its id.
    """
    missing = unrendered_parts(tokenizer, example)
    if missing:
        raise InputError(
            f"The chat template of this model leaves out {_join(missing)}, which row {example.id} has. Choose a model "
            "whose template has tools, such as qwen2.5-0.5b, or prepare the corpus without such rows: --ignore tools "
            "--ignore tool_calls --on-error skip"
        )


def unrendered_parts(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[str]:
    """What a row uses of tools and the chat template leaves out."""
    turns = example.turns
    used = {
        "the tools": example.tools is not None,
        "the tool calls": any(turn.tool_calls for turn in turns),
        "the text beside tool calls": any(turn.tool_calls and turn.content for turn in turns),
        "the results of tools": any(turn.role == "tool" for turn in turns),
    }
    return [part for part in _unrendered(tokenizer, str(tokenizer.chat_template)) if used[part]]


def _join(parts: Sequence[str]) -> str:
    """The parts as in a sentence: one, another and a third."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


@lru_cache(maxsize=4)
def _unrendered(tokenizer: PreTrainedTokenizerBase, template: str) -> tuple[str, ...]:
    """What `template`, which is that of the tokenizer, leaves out of a conversation with tools."""
    try:
        text = _apply(tokenizer, PROBE, PROBE_TOOLS, open_turn=False)
    except InputError:  # it has no such turns
        return tuple(PROBED)
    return tuple(part for part, words in PROBED.items() if not all(word in text for word in words))


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids that end an answer: the tokenizer's end of sequence and the end-of-turn token of its template."""
    answer = render_answer(tokenizer, [Message("user", "-")], "-")
    special = set(tokenizer.all_special_ids)
    ends = {tokenizer.eos_token_id, answer[-1] if answer[-1] in special else None}
    return sorted(token for token in ends if token is not None)


def _pieces(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None, learn_from: int = 0
) -> list[tuple[str, bool]]:
    """Split the rendered conversation into (text, carries loss) pieces; the last piece is the last answer."""
    whole = _apply(tokenizer, messages, tools, open_turn=False)
    pieces: list[tuple[str, bool]] = []
    position = 0
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        start = _prefix_length(_apply(tokenizer, messages[:number], tools, open_turn=True), whole)
        end = len(whole)
        if number + 1 < len(messages):
            end = _prefix_length(_apply(tokenizer, messages[: number + 1], tools, open_turn=False), whole)
        answer = whole[start:end].rstrip()  # templates put a line break after the end-of-turn token
        if not _ends_with_special(tokenizer, answer):
            answer += str(tokenizer.eos_token)
        pieces += [(whole[position:start], False), (answer, number >= learn_from)]
        position = start + len(whole[start:end].rstrip())
    return [(text, is_answer) for text, is_answer in pieces if text]


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None, *, open_turn: bool
) -> str:
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": open_turn, "date_string": TEMPLATE_DATE}
    if tools is not None:
        options["tools"] = json.loads(tools)
    reason = ""
    for form in _forms(messages):
        try:
            return str(tokenizer.apply_chat_template(form, **options))
        except TemplateError as error:
            reason = error.message or type(error).__name__  # the template's own words, without the text of a message
        except TypeError:
            reason = reason or "it takes values of other types"
    raise InputError(f"The chat template of this model rejects a conversation: {reason}")


def _forms(messages: Sequence[Message]) -> Iterator[list[dict[str, Any]]]:
    """The conversation in the forms that templates take: with tool calls in several ways, and without a system role."""
    with_calls = any(message.tool_calls for message in messages)
    for write_id, write_arguments in CALL_FORMS if with_calls else CALL_FORMS[:1]:
        conversation = [_to_turn(message, write_id, write_arguments) for message in messages]
        yield conversation
        if messages[0].role == "system" and len(messages) > 1:
            # Gemma has no system role: the system message opens the first user turn.
            system, first, *rest = conversation
            yield [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _to_turn(message: Message, write_id: Callable[[str], str], write_arguments: Callable[[str], Any]) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                **({} if call.id is None else {"id": write_id(call.id)}),
                "type": "function",
                "function": {"name": call.name, "arguments": write_arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = write_id(message.tool_call_id)
    return turn if message.name is None else {**turn, "name": message.name}


def _shorten(number: str) -> str:
    """An id of nine letters and digits, for an id of any length."""
    return hashlib.sha256(number.encode()).hexdigest()[:9]


# Most templates take arguments as objects, DeepSeek's as text; those of Mistral take ids of nine letters and digits only.
CALL_FORMS: tuple[tuple[Callable[[str], str], Callable[[str], Any]], ...] = (
    (str, json.loads),
    (_shorten, json.loads),
    (str, str),
)


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
