"""What `slmtune chat` talks to: a conversation, which forgets the oldest turns when the context is full, or an encoder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune.errors import ContextLengthError, InputError, UnknownNameError
from finetune.recipe.option_fields import check
from finetune.recipe.options import ANSWER_TOKENS, ChatOptions
from finetune.records import Message
from finetune.scoring.encoders import Excerpt, Prediction
from finetune.serve.engine.classifier import Classifier, describe
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams, Result
from finetune.serve.targets import ServeTarget, open_engine

LISTED = 5  # labels whose probabilities are printed


class Conversation:
    """A conversation with one of the models that are loaded.

    `messages` are the remembered turns and `forgotten` the older ones, which no longer fit; the system message is apart.
    """

    def __init__(
        self, engine: Engine, model: str, *, system: str | None = None, params: GenerationParams | None = None
    ) -> None:
        self.messages: list[Message] = []
        self.forgotten: list[Message] = []
        self.last: Result | None = None
        self.model = model
        self._engine = engine
        self._system = [Message("system", system)] if system else []
        self._params = params or GenerationParams()

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all models that can take part."""
        return tuple(self._engine.served)

    def switch(self, model: str) -> None:
        """Let another model go on with the conversation.

        Raises:
            UnknownNameError: no model has this name.
        """
        self.model = require_name(model, self.models)

    def reply(self, text: str) -> Iterator[str]:
        """Add a user turn and yield the pieces of the answer; the part that was generated is remembered.

        Raises:
            ContextLengthError: this turn alone does not fit in the context; it is not remembered.
            SlmtuneError: the engine failed.
        """
        turn = Message("user", text)
        self._make_room(turn)
        written: list[str] = []
        generation = self._engine.generate([*self._system, *self.messages, turn], self._params, self.model)
        self.last = None
        try:
            for piece in generation:
                written.append(piece)
                yield piece
        finally:
            self.last = generation.result
            if written or self.last is not None:
                self.messages += [turn, Message("assistant", "".join(written))]

    def answer(self, text: str) -> dict[str, Any]:
        """The whole answer, for programs. Raises what `reply` raises."""
        return {"answer": "".join(self.reply(text))}

    def compare(self, text: str | None = None) -> Iterator[tuple[str, Iterator[str]]]:
        """The answers of the base model and of this one, each with its name; only the latter is remembered.

        Without a text, the last question is asked again, in place of its first answer.

        Raises:
            InputError: this model has no base model beside it, or there is no last question.
            ContextLengthError, SlmtuneError: as `reply`.
        """
        base = self._engine.served[self.model].parent
        if base not in self.models:
            raise InputError(f"{self.model} has no base model here to compare with. Choose an adapter: /model NAME")
        if text is None:
            text = self._take_back()
        turn = Message("user", text)
        self._make_room(turn)
        yield base, iter(self._engine.generate([*self._system, *self.messages, turn], self._params, base))
        yield self.model, self.reply(text)

    def save(self, path: Path) -> int:
        """Add the whole conversation to a file that `prepare` reads, as a line of JSON, and return its number of turns.

        Raises:
            InputError: nothing was said yet, or the file cannot be written.
        """
        turns = [*self._system, *self.forgotten, *self.messages]
        if len(turns) == len(self._system):
            raise InputError("Nothing was said yet, so there is nothing to save")
        line = json.dumps(
            {"messages": [{"role": turn.role, "content": turn.content} for turn in turns]}, ensure_ascii=False
        )
        try:
            with open(path, "a", encoding="utf-8", opener=open_privately) as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}). Choose another file") from None
        return len(turns)

    def clear(self) -> None:
        """Forget all turns except the system message."""
        self.messages.clear()
        self.forgotten.clear()

    def _take_back(self) -> str:
        """Remove the last question and its answer, and return the question."""
        if not self.messages:
            raise InputError("Nothing was asked yet. Write the question after /compare")
        question = self.messages[-2].content
        del self.messages[-2:]
        return question

    def _make_room(self, turn: Message) -> None:
        """Forget the oldest questions and answers until the next answer fits."""
        answer = self._params.max_tokens or min(ANSWER_TOKENS, self._engine.context // 2)
        while True:
            needed = len(self._engine.encode_chat([*self._system, *self.messages, turn]))
            if needed + answer <= self._engine.context:
                return
            if not self.messages:
                raise ContextLengthError(needed, answer, self._engine.context)
            self.forgotten += self.messages[:2]
            del self.messages[:2]


class Reading:
    """An encoder that reads one text after the other: each reply has its labels, or the answer that the context gives.

    With a context, each text forms a pair with it.
    """

    def __init__(self, classifier: Classifier, model: str, context: Path | None = None) -> None:
        self.model = model
        self._classifier = classifier
        self._context = read_context(context) if context is not None else None

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all models that can read."""
        return tuple(self._classifier.served)

    def switch(self, model: str) -> None:
        """Let another model read from now on.

        Raises:
            UnknownNameError: no model has this name.
        """
        self.model = require_name(model, self.models)

    def take_context(self, path: Path) -> int:
        """Take another context from a file, and return its length in characters.

        Raises:
            InputError: the file cannot be read, or is empty.
        """
        self._context = read_context(path)
        return len(self._context)

    def reply(self, text: str) -> Iterator[str]:
        """The prediction for a text, in words.

        Raises:
            ContextLengthError: text and context are longer than the model can read.
            InputError: a question has no context.
            SlmtuneError: the engine failed.
        """
        row = self._predict(text)
        if isinstance(row, Excerpt):
            yield f"{row.text or '(no answer)'}  ({row.probability:.1%}, characters {row.start} to {row.end})"
            return
        ordered = sorted(row.probabilities.items(), key=lambda item: -item[1])
        chances = ", ".join(f"{label} {share:.1%}" for label, share in ordered[:LISTED])
        yield f"{', '.join(row.labels) or '(no label)'}  ({chances}{', …' if len(ordered) > LISTED else ''})"

    def answer(self, text: str) -> dict[str, Any]:
        """The prediction for a text, as `POST /v1/classify` gives it. Raises what `reply` raises."""
        return describe(self._predict(text), self._classifier.head)

    def _predict(self, text: str) -> Prediction:
        if self._classifier.head.kind == "extraction" and self._context is None:
            raise InputError(
                "This model finds the answer to a question in a context. Give one with --context FILE, or type /context FILE"
            )
        return self._classifier.classify([(text, self._context)], self.model).rows[0]


def require_name(model: str, models: Sequence[str]) -> str:
    """The name, if it is one of `models`; else an `UnknownNameError`."""
    if model not in models:
        raise UnknownNameError("model", model, models)
    return model


def open_privately(path: str, flags: int) -> int:
    """Open a file that, if it is new, only its owner can read."""
    return os.open(path, flags, 0o600)


def read_context(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it cannot be read, or is empty.
    """
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"The context in {path} cannot be read ({reason}). Give a text file in UTF-8") from None
    if not text:
        raise InputError(f"The context in {path} is empty. Give a file with the text to read")
    return text


@contextmanager
def open_conversation(
    name: str,
    path: Path | str,
    options: ChatOptions | None = None,
    *,
    system: str | None = None,
    context: Path | None = None,
    model: str | None = None,
    others: Sequence[ServeTarget] = (),
) -> Iterator[Conversation | Reading]:
    """Load a model to chat with, and `others` to switch to, and close them at the end.

    Raises:
        ConfigError: the options are out of bounds.
        InputError: an encoder has a system message, or a model that writes has a context.
        SlmtuneError: what `finetune.serve.targets.open_engine` raises.
    """
    options = options or ChatOptions()
    check(options)
    engine = open_engine([ServeTarget(name, path), *others], model=model)
    params = GenerationParams(max_tokens=options.max_new_tokens, temperature=options.temperature)
    try:
        if isinstance(engine, Engine):
            if context is not None:
                raise InputError(f"{name} writes text. Put the context into the prompt: --context is for encoders")
            yield Conversation(engine, name, system=system, params=params)
        elif system:
            raise InputError(f"{name} is an encoder, which reads no system message. Leave out --system")
        else:
            yield Reading(engine, name, context)
    finally:
        engine.close()
        engine.join()
