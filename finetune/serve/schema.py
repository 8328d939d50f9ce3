"""The contents of requests and responses: the supported part of the OpenAI API, with limits on every field.

Unsupported fields of the API are refused by name, unless their value requests nothing (`n: 1`, `tools: []`). Fields that
have no effect here, such as `user`, are ignored. Any other field is treated as a mistake.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from finetune.errors import did_you_mean
from finetune.records import Message
from finetune.serve.job import GenerationParams, Result
from finetune.serve.problem import ApiError

R = TypeVar("R", bound="RequestPart")

JSON_OBJECT = TypeAdapter(dict[str, Any])

MAX_MESSAGES, MAX_STOPS, MAX_STOP_LENGTH, MAX_NAME, MAX_TEXTS = 256, 4, 256, 256, 256
INT64 = 1 << 63
MAX_KEY = 64  # characters of an unknown key that an error repeats

# Fields that would change the answer, with the values that request nothing.
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "web_search_options": (),
}
IGNORED = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)


class RequestPart(BaseModel):
    """A part of a request. It allows no conversions: the string "5" is not a number."""

    model_config = ConfigDict(strict=True, frozen=True)


def _text_of(content: object) -> object:
    """The text of a list of text parts; a plain string is returned unchanged."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("only parts of type text are supported")
    return "".join(text for text in texts if text is not None)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _unwrap_prompt(prompt: object) -> object:
    """The prompt in a list of one; anything else is returned unchanged."""
    return prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt


def _as_texts(value: object) -> object:
    """Each text as a pair, whose second part is None if there is only one."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not 0 < len(items) <= MAX_TEXTS:
        raise ValueError(f"a text, or a list of 1 to {MAX_TEXTS} texts or pairs of texts is needed")
    for number, item in enumerate(items):
        texts = item if isinstance(item, list) and len(item) == 2 else [item]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"item {number} is neither a text nor a pair [text, text], or a text in it is empty")
    return [(item, None) if isinstance(item, str) else tuple(item) for item in items]


Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class ChatMessage(RequestPart):
    """One turn. `developer` is the API's newer name for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text_of)]

    @model_validator(mode="before")
    @classmethod
    def _refuse_tools(cls, data: object) -> object:
        if isinstance(data, dict) and any(data.get(key) for key in ("tool_calls", "function_call", "audio")):
            raise ValueError("tool calls and audio are not supported")
        return data

    def to_message(self) -> Message:
        """The turn as a `Message`."""
        return Message("system" if self.role == "developer" else self.role, self.content)


class StreamOptions(RequestPart):
    """What a stream contains besides the answer."""

    include_usage: bool = False


class GenerationRequest(RequestPart):
    """The fields that chat and text completions have in common."""

    model: str = Field(min_length=1, max_length=MAX_NAME)
    max_tokens: int | None = Field(None, ge=1, lt=INT64)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    stop: Annotated[list[Stop] | None, BeforeValidator(_as_list)] = Field(None, max_length=MAX_STOPS)
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    n: int | None = Field(None, ge=1, le=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def answer_limit(self) -> int | None:
        """The maximum length of the answer in tokens, if the request sets one."""
        return self.max_tokens

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with a count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def params(self) -> GenerationParams:
        """How to sample; the API's default temperature and top_p are 1."""
        return GenerationParams(
            max_tokens=self.answer_limit,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=tuple(self.stop or ()),
            seed=self.seed,
        )


class ChatRequest(GenerationRequest):
    """Body of POST /v1/chat/completions. `max_completion_tokens` is the API's newer name for `max_tokens`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1, lt=INT64)

    @property
    def answer_limit(self) -> int | None:
        """The smaller of the two limits."""
        return min(
            (limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None), default=None
        )


class CompletionRequest(GenerationRequest):
    """Body of POST /v1/completions."""

    prompt: Annotated[str, BeforeValidator(_unwrap_prompt)]


class ClassifyRequest(RequestPart):
    """Body of POST /v1/classify: one text, or a list whose items are texts or pairs of texts."""

    model: str = Field(min_length=1, max_length=MAX_NAME)
    input: Annotated[list[tuple[str, str | None]], BeforeValidator(_as_texts)]


class Usage(BaseModel):
    """Tokens used by a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, result: Result) -> Usage:
        """The token counts of an answer."""
        prompt, completion = result.prompt_tokens, result.completion_tokens
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


class ModelCard(BaseModel):
    """An entry of /v1/models: `parent` is the base model of an adapter, `root` the start of the lineage.

    `task` is "generation" or what the head of an encoder predicts.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["slmtune"] = "slmtune"
    root: str
    parent: str | None
    task: str


def parse_request(model: type[R], body: bytes) -> R:
    """Parse a request.

    Raises:
        ApiError: 400; names the field and never repeats a value.
    """
    try:
        data = JSON_OBJECT.validate_json(body)
    except ValidationError:
        raise ApiError(400, "The body is not a JSON object in UTF-8") from None
    try:
        request = model.model_validate(_select_fields(data, set(model.model_fields)))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = _path_of(first["loc"])
        raise ApiError(400, f"{param}: {first['msg'].removeprefix('Value error, ')}", param=param) from None
    if isinstance(request, GenerationRequest) and request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options: only allowed with stream: true", param="stream_options")
    return request


def _select_fields(data: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """The supported fields; null means the default.

    Raises:
        ApiError: 400; a field is unsupported or unknown.
    """
    for key, value in data.items():
        if value is None or key in fields or key in IGNORED:
            continue
        if key not in UNSUPPORTED:
            name = key[:MAX_KEY]
            hint = did_you_mean(name, sorted(fields))
            raise ApiError(400, f"{name}: unknown parameter. {hint}", param=name)
        if value not in UNSUPPORTED[key]:
            raise ApiError(400, f"{key}: not supported by this server", param=key)
    return {key: value for key, value in data.items() if key in fields and value is not None}


def _path_of(location: tuple[int | str, ...]) -> str:
    """Join the parts of a location, such as `messages[0].content`."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".") or "body"
