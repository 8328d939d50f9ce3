"""The engine behind `slmtune serve` and `slmtune chat`: prompts in, pieces of answers out, many requests at once.

A caller submits a prompt and receives events: pieces of text, then one `Result` or one error. It is independent of HTTP.
"""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from finetune.errors import ContextLengthError, InputError, UnknownNameError
from finetune.models.chat_template import end_of_turn_ids, render_answer, render_prompt
from finetune.models.load import LoadedModel
from finetune.recipe.options import ANSWER_TOKENS
from finetune.records import Message
from finetune.serve.compatible import UNQUANTIZED, Company
from finetune.serve.engine.answer import Answer
from finetune.serve.engine.job import Event, Generation, GenerationJob, GenerationParams, ServedModel
from finetune.serve.engine.job_queue import QUEUE_SIZE
from finetune.serve.engine.sampling import Sampler
from finetune.serve.engine.scheduler import Scheduler
from finetune.serve.runners.runner import Runner
from finetune.serve.runners.speed import seconds_per_token
from finetune.serve.runners.transformers_runner import TransformersRunner

if TYPE_CHECKING:
    from finetune.serve.engine.constraint import Constraints


class Engine:
    """Generates with a loaded model: many requests at once, each with its adapter.

    `runner` computes the logits; by default, transformers does. `precision` is that of the base model in memory.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        served: Sequence[ServedModel],
        *,
        runner: Runner | None = None,
        precision: tuple[str, str] = UNQUANTIZED,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self.loaded = loaded
        self._encoder = loaded.tokenizer
        self._encoding = threading.Lock()
        # The encoder may be busy in another thread, and fast tokenizers cannot be used by two threads.
        self._decoder = copy.deepcopy(loaded.tokenizer)
        settings = getattr(loaded.model, "generation_config", None)
        self._ends = _end_ids(loaded, settings)
        self._repetition_penalty = float(getattr(settings, "repetition_penalty", None) or 1.0)
        self.served = {entry.id: entry for entry in served}
        self._company = Company(loaded, precision)
        self._runner = runner or TransformersRunner(loaded)
        self._serving = threading.Lock()  # held while `served` is read for a request, or changed
        self._loading = threading.Lock()  # held while an adapter is loaded or unloaded
        self._versions = itertools.count(1)
        self.context = self._runner.context
        self.created = int(time.time())
        self.queue_size = queue_size
        self._scheduler = Scheduler(self._runner, self._begin, queue_size)

    @property
    def alive(self) -> bool:
        """Whether requests are served: the engine is not closed and its thread is running."""
        return self._scheduler.alive

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return self._scheduler.waiting

    @property
    def running(self) -> int:
        """The number of requests that are being answered."""
        return self._scheduler.running

    @cached_property
    def constraints(self) -> Constraints:
        """The forms that answers can be made to follow."""
        from finetune.serve.engine.constraint import Constraints  # here: `slmtune chat` does without its library

        return Constraints(self._decoder, self._ends)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation up to the assistant's next turn.

        Raises:
            InputError: the model's chat template rejects the messages, or the first one is an answer.
        """
        if messages[0].role == "assistant":
            raise InputError(
                "The conversation begins with an answer. Begin it with a message of the system or the user"
            )
        with self._encoding:
            return render_prompt(self._encoder, messages)

    def encode_answers(self, messages: Sequence[Message], answers: Sequence[str]) -> list[list[int]]:
        """Token ids of complete answers to a conversation, each with the token that ends its turn."""
        with self._encoding:
            return [render_answer(self._encoder, messages, answer) for answer in answers]

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the special tokens that the tokenizer adds to every text."""
        with self._encoding:
            ids: list[int] = self._encoder(text)["input_ids"]
            return ids

    def submit(
        self, prompt: Sequence[int], params: GenerationParams, model: str, report: Callable[[Event], None]
    ) -> GenerationJob:
        """Queue a prompt. The engine's thread calls `report` with pieces, then with one `Result` or one error.

        Raises:
            UnknownNameError: no model has this name.
            ContextLengthError: prompt and answer do not fit in the context.
            InputError: the prompt is empty.
            QueueFullError: the queue of waiting requests is full.
            EngineStoppedError: the engine was closed, or its thread died.
        """
        if not prompt:
            raise InputError("The prompt is empty. Send at least one token")
        max_tokens = self._limit_answer(len(prompt), params.max_tokens)
        with self._serving:
            adapter = self._find(model).adapter
            job = GenerationJob(tuple(prompt), params, max_tokens, adapter, report, self._scheduler.drop)
            self._scheduler.submit(job)
        return job

    def generate(self, prompt: str | Sequence[Message], params: GenerationParams, model: str) -> Generation:
        """Answer a conversation, or continue a plain text. Raises what `submit` and the encoders raise."""
        ids = self.encode_text(prompt) if isinstance(prompt, str) else self.encode_chat(prompt)
        events: SimpleQueue[Event] = SimpleQueue()
        return Generation(self.submit(ids, params, model, events.put), events)

    def load_adapter(self, name: str, folder: Path) -> None:
        """Serve the adapter in a folder under a name, in place of the one that has it; running requests keep theirs.

        Returns when the former one is out of memory.

        Raises:
            InputError: the name is that of the base model, or the adapter cannot be served beside the others.
            CheckFailedError: the adapter changes nothing.
            EngineStoppedError: the engine was closed, or its thread died.
        """
        with self._loading:
            before = self.served.get(name)
            if before is not None and before.adapter is None:
                raise InputError(f"{name} is the base model. Give the adapter another name")
            adapter = self._company.open(folder)
            inner = f"{name} {next(self._versions)}"  # what the former one computed is not its
            self._scheduler.call(lambda: self._runner.load_adapter(inner, adapter.path))
            base = next((entry.id for entry in self.served.values() if entry.adapter is None), None)
            with self._serving:
                self.served = {**self.served, name: ServedModel.of(adapter, name, inner, base)}
            if before is not None:
                self._drop(before)

    def unload_adapter(self, name: str) -> None:
        """Serve an adapter no longer. Returns when running requests have ended and its memory is free.

        Raises:
            UnknownNameError: no model has this name.
            InputError: the name is that of the base model.
            EngineStoppedError: the engine was closed, or its thread died.
        """
        with self._loading:
            entry = self._find(name)
            if entry.adapter is None:
                raise InputError(f"{name} is the base model, without which there are no adapters. It stays")
            with self._serving:
                self.served = {other: model for other, model in self.served.items() if other != name}
            self._drop(entry)

    def measure(self) -> float:
        """Seconds per token of a few requests at once, spread over the adapters, or of the base model if there are none."""
        adapters = [entry.adapter for entry in self.served.values() if entry.adapter is not None]
        return self._scheduler.call(lambda: seconds_per_token(self._runner, adapters or [None]))

    def close(self) -> None:
        """Refuse new requests and end all others with an `EngineStoppedError`. Can be called repeatedly."""
        self._scheduler.close()

    def join(self) -> None:
        """Wait a few seconds at most for the thread of a closed engine to end."""
        self._scheduler.join()

    def _find(self, name: str) -> ServedModel:
        if name not in self.served:
            raise UnknownNameError("model", name, self.served)
        return self.served[name]

    def _drop(self, entry: ServedModel) -> None:
        """Free the memory of an adapter that is not served any more, once no request needs it."""
        adapter = entry.adapter
        assert adapter is not None
        self._scheduler.call(lambda: self._runner.unload_adapter(adapter), adapter)

    def _limit_answer(self, prompt: int, max_tokens: int | None) -> int:
        room = self.context - prompt
        if room < (1 if max_tokens is None else max_tokens):
            raise ContextLengthError(prompt, max_tokens or 1, self.context)
        return min(ANSWER_TOKENS, room) if max_tokens is None else max_tokens

    def _begin(self, job: GenerationJob) -> tuple[Sampler, Answer]:
        """What chooses the tokens of a job, and what receives them."""
        sampler = Sampler(job.params, job.prompt, repetition_penalty=self._repetition_penalty)
        return sampler, Answer(job, self._ends, self._decode)

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._decoder.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _end_ids(loaded: LoadedModel, settings: Any) -> frozenset[int]:
    """Tokens that end an answer, from the tokenizer, its chat template and the model's generation settings."""
    stated = getattr(settings, "eos_token_id", None)
    stated = stated if isinstance(stated, list) else [stated]
    return frozenset(int(token) for token in (*end_of_turn_ids(loaded.tokenizer), *stated) if token is not None)
