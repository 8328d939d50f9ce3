"""The conversation behind `slmtune chat`: it remembers turns and forgets the oldest ones when the context is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.errors import ContextLengthError
from finetune.recipe.options import ANSWER_TOKENS, ChatOptions, check
from finetune.records import Message
from finetune.serve.engine import Engine
from finetune.serve.job import GenerationParams, Result
from finetune.serve.targets import ServeTarget, open_engine


class Conversation:
    """A conversation with one model. `messages` are the remembered turns, `forgotten` is the number of dropped ones."""

    def __init__(
        self, engine: Engine, model: str, *, system: str | None = None, params: GenerationParams | None = None
    ) -> None:
        self.messages: list[Message] = []
        self.forgotten = 0
        self.last: Result | None = None
        self._engine = engine
        self._model = model
        self._system = [Message("system", system)] if system else []
        self._params = params or GenerationParams()

    def reply(self, text: str) -> Iterator[str]:
        """Add a user turn and yield the pieces of the answer; the part that was generated is remembered.

        Raises:
            ContextLengthError: this turn alone does not fit in the context; it is not remembered.
            SlmtuneError: the engine failed.
        """
        turn = Message("user", text)
        self._make_room(turn)
        written: list[str] = []
        generation = self._engine.generate([*self._system, *self.messages, turn], self._params, self._model)
        self.last = None
        try:
            for piece in generation:
                written.append(piece)
                yield piece
        finally:
            self.last = generation.result
            if written or self.last is not None:
                self.messages += [turn, Message("assistant", "".join(written))]

    def clear(self) -> None:
        """Forget all turns except the system message."""
        self.messages.clear()
        self.forgotten = 0

    def _make_room(self, turn: Message) -> None:
        """Forget the oldest questions and answers until the next answer fits."""
        answer = self._params.max_tokens or min(ANSWER_TOKENS, self._engine.context // 2)
        while True:
            needed = len(self._engine.encode_chat([*self._system, *self.messages, turn]))
            if needed + answer <= self._engine.context:
                return
            if not self.messages:
                raise ContextLengthError(needed, answer, self._engine.context)
            del self.messages[:2]
            self.forgotten += 1


@contextmanager
def open_conversation(
    name: str,
    path: Path | str,
    options: ChatOptions | None = None,
    *,
    system: str | None = None,
    model: str | None = None,
) -> Iterator[Conversation]:
    """Load a model to chat with, and close it at the end.

    Raises:
        ConfigError: the options are out of bounds.
        SlmtuneError: what `finetune.serve.targets.open_engine` raises.
    """
    options = options or ChatOptions()
    check(options)
    engine = open_engine([ServeTarget(name, path)], model=model)
    params = GenerationParams(max_tokens=options.max_new_tokens, temperature=options.temperature)
    try:
        yield Conversation(engine, name, system=system, params=params)
    finally:
        engine.close()
        engine.join()
