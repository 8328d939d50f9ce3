"""The engine behind `POST /v1/classify`: one worker thread that runs an encoder, behind a bounded queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from peft import PeftModel

from finetune.errors import ContextLengthError, InputError, SlmtuneError, UnknownNameError
from finetune.models.encoder_inputs import EncoderInput, encode_texts
from finetune.models.heads import Head
from finetune.models.load import LoadedModel
from finetune.scoring.encoders import Excerpt, Prediction, embed, predict
from finetune.serve.engine.job import Job, R, ServedModel
from finetune.serve.engine.job_queue import QUEUE_SIZE
from finetune.serve.engine.worker import Worker

BATCH_SIZE = 16  # texts per forward pass
CHUNK = 64  # texts between two looks at whether the client is still there

Texts = tuple[str, str | None]  # one text, or two: a pair, or a question and the context that answers it


@dataclass(frozen=True)
class EncodedTexts:
    """The texts of a request as the model reads them, and the context of each, if it has one."""

    inputs: tuple[EncoderInput, ...]
    contexts: tuple[str | None, ...]


@dataclass(frozen=True)
class Classification:
    """What the model says about each text of a request, and the number of tokens that it read."""

    rows: tuple[Prediction, ...]
    tokens: int


@dataclass(frozen=True)
class Embeddings:
    """A vector of length 1 for each text of a request, and the number of tokens that the model read."""

    rows: tuple[tuple[float, ...], ...]
    tokens: int


class TextsJob(Job[R]):
    """Texts to read with an adapter."""

    def __init__(
        self,
        texts: EncodedTexts,
        adapter: str | None,
        listener: Callable[[Any], None],
        dequeue: Callable[[Any], None],
        when_cancelled: R,
    ) -> None:
        super().__init__(listener, dequeue, when_cancelled)
        self.texts = texts
        self.adapter = adapter


class ClassificationJob(TextsJob[Classification]):
    """Texts to classify."""


class EmbeddingJob(TextsJob[Embeddings]):
    """Texts to embed."""


class Classifier:
    """Classifies texts with a loaded encoder, one request at a time, in the order of arrival."""

    def __init__(self, loaded: LoadedModel, served: Sequence[ServedModel], *, queue_size: int = QUEUE_SIZE) -> None:
        assert loaded.head is not None
        self.head = loaded.head
        self.served = {entry.id: entry for entry in served}
        self.created = int(time.time())
        self.queue_size = queue_size
        self._loaded = loaded
        self._encoding = threading.Lock()
        self._worker: Worker[ClassificationJob | EmbeddingJob] = Worker(
            self._run, queue_size, "Send fewer or shorter texts"
        )

    @property
    def alive(self) -> bool:
        """Whether requests are served: the engine is not closed and its worker is running."""
        return self._worker.alive

    @property
    def waiting(self) -> int:
        """The number of requests in the queue."""
        return self._worker.waiting

    @property
    def running(self) -> int:
        """The number of requests that are being answered."""
        return self._worker.running

    def encode(self, texts: Sequence[Texts], *, needs_contexts: bool = True) -> EncodedTexts:
        """Tokenise texts.

        Raises:
            InputError: a question has no context, although the model needs one to answer it.
            ContextLengthError: a text is longer than the model can read.
        """
        if needs_contexts and self.head.kind == "extraction" and any(second is None for _, second in texts):
            raise InputError(
                "This model finds the answer to a question in a context. Send pairs: [[question, context]]"
            )
        inputs = []
        for first, second in texts:
            with self._encoding:
                one = encode_texts(self._loaded.tokenizer, first, second, self._loaded.context)
            if one.truncated:
                raise ContextLengthError(one.length, 0, self._loaded.context)
            inputs.append(one)
        return EncodedTexts(tuple(inputs), tuple(second for _, second in texts))

    def submit(self, texts: EncodedTexts, model: str, report: Callable[[Any], None]) -> ClassificationJob:
        """Queue texts. The worker's thread calls `report` with one `Classification` or one error.

        Raises:
            UnknownNameError: no model has this name.
            QueueFullError: the queue of waiting requests is full.
            EngineStoppedError: the engine was closed, or its worker died.
        """
        job = ClassificationJob(texts, self._adapter_of(model), report, self._worker.drop, Classification((), 0))
        self._worker.submit(job)
        return job

    def submit_for_embedding(self, texts: EncodedTexts, model: str, report: Callable[[Any], None]) -> EmbeddingJob:
        """Queue texts. The worker's thread calls `report` with `Embeddings` or an error. Raises what `submit` raises."""
        job = EmbeddingJob(texts, self._adapter_of(model), report, self._worker.drop, Embeddings((), 0))
        self._worker.submit(job)
        return job

    def classify(self, texts: Sequence[Texts], model: str) -> Classification:
        """What the model says about each text. Raises what `encode` and `submit` raise."""
        events: SimpleQueue[Classification | SlmtuneError] = SimpleQueue()
        self.submit(self.encode(texts), model, events.put)
        event = events.get()
        if isinstance(event, SlmtuneError):
            raise event
        return event

    def close(self) -> None:
        """Refuse new requests and end all others with an `EngineStoppedError`. Can be called repeatedly."""
        self._worker.close()

    def join(self) -> None:
        """Wait a few seconds at most for the worker of a closed engine to end."""
        self._worker.join()

    def _adapter_of(self, model: str) -> str | None:
        if model not in self.served:
            raise UnknownNameError("model", model, self.served)
        return self.served[model].adapter

    def _run(self, job: ClassificationJob | EmbeddingJob) -> Classification | Embeddings:
        if isinstance(self._loaded.model, PeftModel) and job.adapter is not None:
            self._loaded.model.set_adapter(job.adapter, inference_mode=True)
        inputs, contexts = job.texts.inputs, job.texts.contexts
        rows: list[Any] = []
        for start in range(0, len(inputs), CHUNK):
            if job.cancelled.is_set():
                return job.when_cancelled
            part = slice(start, start + CHUNK)
            if isinstance(job, EmbeddingJob):
                rows += embed(self._loaded, inputs[part], batch_size=BATCH_SIZE)
            else:
                rows += predict(self._loaded, inputs[part], contexts[part], batch_size=BATCH_SIZE)
        kind = Embeddings if isinstance(job, EmbeddingJob) else Classification
        return kind(tuple(rows), sum(len(one.ids) for one in inputs))


def describe(row: Prediction, head: Head) -> dict[str, Any]:
    """A prediction as JSON: the answer, the label or, if a text may have several, all of its labels."""
    if isinstance(row, Excerpt):
        return {"answer": row.text, "score": round(row.probability, 6), "start": row.start, "end": row.end}
    labels = {"labels": list(row.labels)} if head.kind == "multi-label" else {"label": row.labels[0]}
    probabilities = {label: round(share, 6) for label, share in row.probabilities.items()}
    return {**labels, "probs": probabilities, "num_classes": len(probabilities)}
