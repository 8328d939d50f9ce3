"""The files for Ollama: how it renders conversations for a GGUF file, and where it stops."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from finetune.errors import InputError
from finetune.models.chat_template import end_of_turn_ids, render_text
from finetune.models.gguf.vocabulary import adds_bos
from finetune.records import Example, Message

# What stands for the texts of a conversation, in words that no template contains.
SYSTEM, QUESTION, ANSWER, NEXT = "probed_system", "probed_question", "probed_answer", "probed_next"


@dataclass(frozen=True)
class Turns:
    """What a chat template puts around the texts of a conversation that the assistant is to continue."""

    start: str  # if there is no system message
    before_system: str
    after_system: str
    after_question: str
    before_answer: str  # in earlier turns, beyond what already stands after the question
    after_answer: str

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as Ollama renders it."""
        first, *rest = messages
        begins = first.role == "system"
        text = f"{self.before_system}{first.content}{self.after_system}" if begins else self.start
        for message in rest if begins else messages:
            if message.role == "user":
                text += message.content + self.after_question
            else:
                text += self.before_answer + message.content + self.after_answer
        return text

    def template(self, bos: str) -> str:
        """The same in the language of Go's templates, with texts as quoted strings, and without the `bos` that Ollama adds."""
        start, before_system = (quote(text.removeprefix(bos)) for text in (self.start, self.before_system))
        return (
            f"{{{{ if .System }}}}{before_system}{{{{ .System }}}}{quote(self.after_system)}{{{{ else }}}}{start}{{{{ end }}}}"
            '{{ range .Messages }}{{ if eq .Role "user" }}'
            f"{{{{ .Content }}}}{quote(self.after_question)}"
            '{{ else if eq .Role "assistant" }}'
            f"{quote(self.before_answer)}{{{{ .Content }}}}{quote(self.after_answer)}{{{{ end }}}}{{{{ end }}}}"
        )


def quote(text: str) -> str:
    """A text in a template of Go, where no character of it means anything."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def read_turns(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]) -> Turns:
    """What the chat template of a tokenizer puts around texts, checked on rows.

    Raises:
        InputError: a template of Ollama cannot render conversations in the same way.
    """
    question, answer, following = Message("user", QUESTION), Message("assistant", ANSWER), Message("user", NEXT)
    start, after = _split(render_text(tokenizer, [question]), QUESTION)
    before_answer, rest = _split(render_text(tokenizer, [question, answer, following]), ANSWER)
    before_answer = before_answer.removeprefix(start + QUESTION).removeprefix(after)
    before_system, with_system = _split(render_text(tokenizer, [Message("system", SYSTEM), question]), SYSTEM)
    after_system, after_answer = _split(with_system, QUESTION)[0], _split(rest, NEXT)[0]
    turns = Turns(start, before_system, after_system, after, before_answer, after_answer)
    others = sum(turns.render(row.prompt) != render_text(tokenizer, row.prompt) for row in rows if not row.uses_tools)
    if others:
        raise InputError(
            f"A Modelfile would render {others} of {len(rows)} conversations differently from the chat template of this model. "
            "Leave out --ollama, and use the file with llama.cpp, which reads the chat template itself"
        )
    return turns


def _split(text: str, word: str) -> tuple[str, str]:
    before, found, after = text.partition(word)
    if not found or word in after:
        raise InputError(
            "The chat template of this model does not render each message once, so it cannot be written as a Modelfile. "
            "Leave out --ollama, and use the file with llama.cpp, which reads the chat template itself"
        )
    return before, after


def ollama_files(file: str, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Example]) -> dict[str, str]:
    """The texts of the files that Ollama reads, by name, for a GGUF file in the same folder.

    It reads the Modelfile of a folder, and `template` and `params` of a repository on the Hub.

    Raises:
        InputError: see `read_turns`.
    """
    template = read_turns(tokenizer, rows).template(str(tokenizer.bos_token) if adds_bos(tokenizer) else "")
    stops = [str(tokenizer.convert_ids_to_tokens(token)) for token in end_of_turn_ids(tokenizer)]
    lines = [f"FROM ./{file}", f'TEMPLATE """{template}"""', *(f"PARAMETER stop {json.dumps(stop)}" for stop in stops)]
    return {"Modelfile": "\n".join(lines) + "\n", "template": template, "params": json.dumps({"stop": stops}) + "\n"}
