"""llama.cpp's own server, in this process: chat templates rendered by its engine, and adapters beside a model."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import torch

from finetune.errors import InputError, SlmtuneError
from finetune.records import Message

PATIENCE = 600.0  # seconds for an answer
# Added to the logit of a letter, so that the server chooses it: it reports no probabilities, which the bias leaves alone, if it
# chooses a piece of a character.
FORCED = 1e6


class LlamaServer:
    """A model in a GGUF file, alone or with a LoRA adapter in another, until it is closed.

    llama.cpp opens a port on this machine's loopback address; its key is known to this process alone.
    """

    def __init__(self, file: Path, context: int, lora: Path | None = None) -> None:
        import xllamacpp

        key = secrets.token_urlsafe()
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = context, 1, 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
        settings.use_jinja, settings.warmup, settings.verbosity = True, False, -1
        settings.api_keys = [key]
        if lora is not None:
            settings.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(lora), 1.0)]
        try:
            self._server: Any = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise InputError(f"{lora or file} cannot be loaded by llama.cpp: {str(error).splitlines()[0]}") from None
        self._client = httpx2.Client(
            base_url=self._server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=PATIENCE,
            trust_env=False,
        )
        self._letter = self._tokenize("a")[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()
        self._server = None  # ends it

    def render_prompt(self, messages: Sequence[Message]) -> list[int] | None:
        """The token ids of a conversation up to the assistant's next turn; None if the chat template rejects it."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        answer = self._client.post("/apply-template", json={"messages": turns})
        if answer.is_error:
            return None
        return self._tokenize(answer.json()["prompt"])

    def _tokenize(self, text: str) -> list[int]:
        request = {"content": text, "add_special": True, "parse_special": True}
        return list(self._client.post("/tokenize", json=request).raise_for_status().json()["tokens"])

    def next_tokens(self, ids: Sequence[int], count: int) -> dict[int, float]:
        """The likeliest tokens after `ids`, and their log-probabilities, the likeliest first.

        Raises:
            SlmtuneError: llama.cpp cannot compute them.
        """
        request = {"prompt": list(ids), "n_predict": 1, "logprobs": count, "logit_bias": [[self._letter, FORCED]]}
        answer = self._server.handle_completions(request)
        if "choices" not in answer:
            raise SlmtuneError(f"llama.cpp cannot compute the model: {answer.get('message', 'no reason given')}")
        first = answer["choices"][0]["logprobs"]["content"][0]
        return {int(token["id"]): float(token["logprob"]) for token in first["top_logprobs"]}
