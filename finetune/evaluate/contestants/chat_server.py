"""A client for servers with the chat completions of the OpenAI API: found before anything is loaded, asked with patience."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from finetune.errors import InputError, SlmtuneError
from finetune.evaluate.contestants.contestant import RowsCallback
from finetune.hub.retry import requested_wait
from finetune.hub.settings import is_offline
from finetune.records import Message

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before the second, third, … try
LONGEST_WAIT = 60.0  # seconds that a server may ask to wait
TIMEOUT = httpx2.Timeout(120.0, connect=10.0)  # seconds for an answer; a busy server on a CPU needs them
LOOK_UP = httpx2.Timeout(10.0, connect=5.0)
AT_ONCE = 4  # requests; a server with few slots queues no more than it would anyway
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LISTED = 20  # models that an error lists at most

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """The text of an answer, and whether the server says that the model refused to answer."""

    text: str
    refused: bool = False


@dataclass(frozen=True)
class Question:
    """The messages of a row; `id` names the row in errors."""

    id: str
    messages: Sequence[Message]


@dataclass(frozen=True)
class ChatServer:
    """A model of a server; `url` ends where the paths of the API begin, usually in /v1."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """The host and the port."""
        return urlsplit(self.url).netloc

    def ask(self, questions: Sequence[Question], max_tokens: int, on_rows: RowsCallback) -> list[Reply]:
        """Greedy answers, in order; several requests at a time, each repeated after transient failures.

        Raises:
            SlmtuneError: the server refused a question, or no longer answers.
        """
        if not is_loopback(self.url):
            log.warning("The text of %d rows is sent to %s.", len(questions), self.host)
        answers = self._ask_all(questions, max_tokens, on_rows)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(answers)
        with ThreadPoolExecutor(1) as thread:  # a notebook: its loop runs already, and one thread runs one loop
            return thread.submit(asyncio.run, answers).result()

    async def _ask_all(self, questions: Sequence[Question], max_tokens: int, on_rows: RowsCallback) -> list[Reply]:
        slots = asyncio.Semaphore(AT_ONCE)

        async def ask(question: Question) -> Reply:
            async with slots:
                reply = await self._ask(client, question, max_tokens)
            on_rows(1)
            return reply

        async with httpx2.AsyncClient(**_settings(self.url, self.key), timeout=TIMEOUT) as client:
            try:
                async with asyncio.TaskGroup() as group:  # one that fails cancels the others, also while they wait
                    tasks = [group.create_task(ask(question)) for question in questions]
            except* SlmtuneError as errors:
                raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, client: httpx2.AsyncClient, question: Question, max_tokens: int) -> Reply:
        messages = [{"role": turn.role, "content": turn.content} for turn in question.messages]
        body = {"model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
        problem, delay = "", 0.0
        for pause in (*WAITS, None):
            try:
                response = await client.post("chat/completions", json=body)
            except httpx2.RequestError as error:
                problem, delay = type(error).__name__, 0.0
            else:
                if response.status_code not in TRANSIENT:
                    return self._read(response, question)
                problem, delay = f"status {response.status_code}", min(requested_wait(response), LONGEST_WAIT)
            if pause is None:
                break
            log.info("%s: %s. Trying again.", self.host, problem)
            await asyncio.sleep(max(pause, delay))
        raise SlmtuneError(
            f"The server at {self.host} (--vs) did not answer row {question.id} in {len(WAITS) + 1} tries ({problem}). See its "
            "log, then run the same command again: answers of other models are kept"
        )

    def _read(self, response: httpx2.Response, question: Question) -> Reply:
        if response.status_code != httpx2.codes.OK:
            raise SlmtuneError(
                f"The server at {self.host} (--vs) refused row {question.id} with status {response.status_code}. If the row is "
                "too long for the model there, use --limit or a task with shorter rows; see also the log of the server"
            )
        try:
            choice = response.json()["choices"][0]
            message = choice["message"]
            text = message["content"] or ""
            if not isinstance(text, str):
                raise TypeError
            refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
        except (ValueError, LookupError, TypeError, AttributeError):
            raise SlmtuneError(
                f"The server at {self.host} (--vs) answered row {question.id} with something that is no chat completion. Give "
                "the address of an OpenAI-compatible server"
            ) from None
        return Reply(text, refused)


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def find_server(text: str, key: str | None) -> ChatServer:
    """The server at URL or URL#MODEL, after asking it for its models; without a key, the one in OPENAI_API_KEY may be used.

    Raises:
        InputError: it cannot be reached or may not be, it refuses the key, or it does not have the model or has several.
    """
    url, wanted = _read_url(text)
    host = urlsplit(url).netloc
    if is_offline() and not is_loopback(url):
        raise InputError(f"--offline forbids asking the server at {host} (--vs). Leave out one of the two")
    names = _list_models(url, key)
    listing = f"Its models are: {', '.join(names[:LISTED])}{' …' if len(names) > LISTED else ''}"
    if wanted is None and len(names) != 1:
        reason = f"has several models. Name one: --vs {url}#MODEL. {listing}" if names else "lists no model"
        raise InputError(f"The server at {host} (--vs) {reason}")
    if wanted is not None and names and wanted not in names:
        raise InputError(f"The server at {host} (--vs) has no model {wanted!r}. {listing}")
    return ChatServer(url, wanted or names[0], key)


def _read_url(text: str) -> tuple[str, str | None]:
    """The address where the paths of the API begin, and the name of the model behind `#`."""
    place, _, model = text.partition("#")
    try:
        parts = urlsplit(place)
        named, _ = parts.hostname, parts.port
    except ValueError:
        named = None
    if not named or parts.username or parts.password or parts.query:
        raise InputError(
            "A server is given as http(s)://HOST[:PORT][/v1][#MODEL] (--vs), without a user, a password or a query. A key "
            "belongs into a file: --vs-key-file"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}", model or None


def _list_models(url: str, key: str | None) -> list[str]:
    host = urlsplit(url).netloc
    try:
        with httpx2.Client(**_settings(url, key), timeout=LOOK_UP) as client:
            response = client.get("models")
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        raise InputError(
            f"The server at {host} (--vs) cannot be reached ({type(error).__name__}). Start it, or correct the address"
        ) from None
    if response.status_code in (401, 403):
        raise InputError(
            f"The server at {host} (--vs) refuses the key (status {response.status_code}). Write the right one to a file "
            "and pass it with --vs-key-file, or set OPENAI_API_KEY"
        )
    try:
        return [str(one["id"]) for one in response.raise_for_status().json()["data"]]
    except (httpx2.HTTPStatusError, json.JSONDecodeError, ValueError, LookupError, TypeError):
        raise InputError(
            f"The server at {host} (--vs) does not list its models at {urlsplit(url).path}/models (status "
            f"{response.status_code}). Give the address of an OpenAI-compatible server"
        ) from None


def _settings(url: str, key: str | None) -> dict[str, Any]:
    """The settings of a client; for this machine it takes no proxy, whatever the environment says."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return {"base_url": f"{url}/", "headers": headers, "trust_env": not is_loopback(url)}
