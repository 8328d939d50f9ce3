"""The engine behind `slmtune serve` and `slmtune chat`: one worker thread that generates, behind a bounded queue.

A caller submits a prompt and receives events: pieces of text, then one `Result` or one error. It is independent of HTTP.
"""

from __future__ import annotations

import copy
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import GenerationConfig, StoppingCriteriaList

from finetune.errors import ContextLengthError, InputError, UnknownNameError
from finetune.models.chat_template import end_of_turn_ids, render_prompt
from finetune.models.load import LoadedModel
from finetune.recipe.options import ANSWER_TOKENS
from finetune.records import Message
from finetune.serve.job import Event, Generation, GenerationJob, GenerationParams, Result, ServedModel
from finetune.serve.text import Detokenizer
from finetune.serve.watcher import Watcher
from finetune.serve.worker import QUEUE_SIZE, Worker

GREEDY_BELOW = 1e-3  # lower temperatures differ from greedy decoding only by rounding, and dividing by them overflows


class Engine:
    """Generates with a loaded model, one request at a time, in the order of arrival."""

    def __init__(self, loaded: LoadedModel, served: Sequence[ServedModel], *, queue_size: int = QUEUE_SIZE) -> None:
        self._model = loaded.model
        self._encoder = loaded.tokenizer
        self._encoding = threading.Lock()
        # The encoder may be busy in another thread, and fast tokenizers cannot be used by two threads.
        self._decoder = copy.deepcopy(loaded.tokenizer)
        self._ends = _end_ids(loaded)
        self.served = {entry.id: entry for entry in served}
        self.context = loaded.context
        self.created = int(time.time())
        self.queue_size = queue_size
        self._worker = Worker(self._generate, queue_size, "Shorten the prompt or lower max_tokens")

    @property
    def alive(self) -> bool:
        """Whether requests are served: the engine is not closed and its worker is running."""
        return self._worker.alive

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return self._worker.waiting

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation up to the assistant's next turn.

        Raises:
            InputError: the model's chat template rejects the messages.
        """
        with self._encoding:
            return render_prompt(self._encoder, messages)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the special tokens that the tokenizer adds to every text."""
        with self._encoding:
            ids: list[int] = self._encoder(text)["input_ids"]
            return ids

    def submit(
        self, prompt: Sequence[int], params: GenerationParams, model: str, report: Callable[[Event], None]
    ) -> GenerationJob:
        """Queue a prompt. The worker's thread calls `report` with pieces, then with one `Result` or one error.

        Raises:
            UnknownNameError: no model has this name.
            ContextLengthError: prompt and answer do not fit in the context.
            InputError: the prompt is empty.
            QueueFullError: the queue of waiting requests is full.
            EngineStoppedError: the engine was closed, or its worker died.
        """
        if model not in self.served:
            raise UnknownNameError("model", model, self.served)
        if not prompt:
            raise InputError("The prompt is empty. Send at least one token")
        max_tokens = self._limit_answer(len(prompt), params.max_tokens)
        job = GenerationJob(tuple(prompt), params, max_tokens, self.served[model].adapter, report, self._worker.drop)
        self._worker.submit(job)
        return job

    def generate(self, prompt: str | Sequence[Message], params: GenerationParams, model: str) -> Generation:
        """Answer a conversation, or continue a plain text. Raises what `submit` and the encoders raise."""
        ids = self.encode_text(prompt) if isinstance(prompt, str) else self.encode_chat(prompt)
        events: SimpleQueue[Event] = SimpleQueue()
        return Generation(self.submit(ids, params, model, events.put), events)

    def close(self) -> None:
        """Refuse new requests and end all others with an `EngineStoppedError`. Can be called repeatedly."""
        self._worker.close()

    def join(self) -> None:
        """Wait a few seconds at most for the worker of a closed engine to end."""
        self._worker.join()

    def _limit_answer(self, prompt: int, max_tokens: int | None) -> int:
        room = self.context - prompt
        if room < (1 if max_tokens is None else max_tokens):
            raise ContextLengthError(prompt, max_tokens or 1, self.context)
        return min(ANSWER_TOKENS, room) if max_tokens is None else max_tokens

    def _generate(self, job: GenerationJob) -> Result:
        prompt = torch.tensor([job.prompt], device=self._model.device)
        watcher = Watcher(job, self._ends, Detokenizer(self._decode))
        seed = secrets.randbits(63) if job.params.seed is None else job.params.seed
        devices = [prompt.device] if prompt.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self._activate(job.adapter):
            torch.manual_seed(seed)
            # PEFT and transformers annotate `generate` differently.
            cast(Any, self._model).generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=self._settings(job),
                stopping_criteria=StoppingCriteriaList([watcher]),
            )
        return watcher.finish()

    def _activate(self, adapter: str | None) -> AbstractContextManager[Any]:
        """Activate the adapter or, for the base model, disable all adapters."""
        if not isinstance(self._model, PeftModel):
            return nullcontext()
        if adapter is None:
            return cast(AbstractContextManager[Any], self._model.disable_adapter())
        self._model.set_adapter(adapter, inference_mode=True)
        return nullcontext()

    def _settings(self, job: GenerationJob) -> GenerationConfig:
        """The model's own generation settings, overridden by those of the request."""
        settings = copy.deepcopy(self._model.generation_config)
        assert isinstance(settings, GenerationConfig)
        sampling = job.params.temperature >= GREEDY_BELOW
        settings.update(
            max_new_tokens=job.max_tokens,
            max_length=None,
            do_sample=sampling,
            temperature=float(job.params.temperature) if sampling else None,  # an int is refused
            top_p=float(job.params.top_p) if sampling else None,
            top_k=0 if sampling else None,  # the library's default would cut the distribution at 50 tokens
            num_beams=1,
            num_return_sequences=1,
            return_dict_in_generate=False,
            use_cache=True,
            eos_token_id=sorted(self._ends),
            pad_token_id=self._decoder.pad_token_id,
        )
        return settings

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._decoder.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _end_ids(loaded: LoadedModel) -> frozenset[int]:
    """Tokens that end an answer, from the tokenizer, its chat template and the model's generation settings."""
    settings = getattr(loaded.model, "generation_config", None)
    stated = getattr(settings, "eos_token_id", None)
    stated = stated if isinstance(stated, list) else [stated]
    return frozenset(int(token) for token in (*end_of_turn_ids(loaded.tokenizer), *stated) if token is not None)
