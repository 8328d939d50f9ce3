"""The contents of requests and responses: the supported part of the OpenAI API, with limits on every field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from finetune.errors import InputError
from finetune.records import Message
from finetune.serve.api.answer_form import ResponseFormat, StructuredOutputs
from finetune.serve.api.problem import ApiError
from finetune.serve.api.request_fields import RequestPart
from finetune.serve.engine.job import GenerationParams, Result

MAX_MESSAGES, MAX_STOPS, MAX_STOP_LENGTH, MAX_NAME, MAX_TEXTS, MAX_ANSWERS = 256, 4, 256, 256, 256, 8
MAX_LABELS = 256
MAX_CHAT_SCORES, MAX_TEXT_SCORES = 20, 5  # as in the API of OpenAI
INT64 = 1 << 63
TEXT_PARTS = ("text", "input_text", "output_text")  # the latter two in responses


def _text_of(content: object) -> object:
    """The text of a list of text parts; a plain string is returned unchanged."""
    if not isinstance(content, list):
        return content
    parts = [part if isinstance(part, dict) and part.get("type") in TEXT_PARTS else {} for part in content]
    texts = [part.get("text") for part in parts]
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


def _require_distinct(labels: list[str]) -> list[str]:
    if len(set(labels)) < len(labels):
        raise ValueError("two of them are the same")
    return labels


Label = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class ChatMessage(RequestPart):
    """One turn. `developer` is the API's newer name for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text_of, json_schema_input_type=str | list[dict[str, str]])]

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
    stop: Annotated[list[Stop] | None, BeforeValidator(_as_list, json_schema_input_type=Stop | list[Stop] | None)] = (
        Field(None, max_length=MAX_STOPS)
    )
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

    def grammar(self) -> str | None:
        """The grammar of the answer; None is any text.

        Raises:
            ApiError: 400; names the field whose schema is too large.
        """
        if self.response_format is not None and self.structured_outputs is not None:
            raise ApiError(400, "Set response_format or structured_outputs, not both", param="structured_outputs")
        try:
            form = self.structured_outputs or self.response_format
            return None if form is None else form.grammar()
        except InputError as error:
            raise ApiError(400, str(error), param=self.form_field) from None

    @property
    def form_field(self) -> str:
        """The field that says which form the answer has."""
        return "response_format" if self.structured_outputs is None else "structured_outputs"

    @property
    def answer_limit(self) -> int | None:
        """The maximum length of the answer in tokens, if the request sets one."""
        return self.max_tokens

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with a count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def score_count(self) -> int | None:
        """How many alternatives to each token come with log-probabilities; None without these."""
        return None

    def params(self, client: str) -> GenerationParams:
        """How to sample an answer for a client; the API's default temperature and top_p are 1."""
        return GenerationParams(
            max_tokens=self.answer_limit,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            logprobs=self.score_count,
            client=client,
        )


class ChatRequest(GenerationRequest):
    """Body of POST /v1/chat/completions. `max_completion_tokens` is the API's newer name for `max_tokens`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1, lt=INT64)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_CHAT_SCORES)

    @property
    def answer_limit(self) -> int | None:
        """The smaller of the two limits."""
        return min(
            (limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None), default=None
        )

    @property
    def score_count(self) -> int | None:
        """None unless `logprobs` is true."""
        return self.top_logprobs or 0 if self.logprobs else None


class CompletionRequest(GenerationRequest):
    """Body of POST /v1/completions."""

    prompt: Annotated[str, BeforeValidator(_unwrap_prompt, json_schema_input_type=str | list[str])]
    logprobs: int | None = Field(None, ge=0, le=MAX_TEXT_SCORES)

    @property
    def score_count(self) -> int | None:
        """The number in `logprobs`."""
        return self.logprobs


class ClassifyRequest(RequestPart):
    """Body of POST /v1/classify: one text, or a list whose items are texts or pairs of texts.

    Models that write may be given `labels` and an `instruction`, or the name of a `task` of their domain.
    """

    model: str = Field(min_length=1, max_length=MAX_NAME)
    input: Annotated[
        list[tuple[str, str | None]], BeforeValidator(_as_texts, json_schema_input_type=str | list[str | list[str]])
    ]
    labels: Annotated[list[Label], AfterValidator(_require_distinct)] | None = Field(
        None, min_length=2, max_length=MAX_LABELS
    )
    instruction: str | None = None
    task: str | None = Field(None, min_length=1, max_length=MAX_NAME)


class PromptTokens(BaseModel):
    """How many tokens of a prompt an earlier one had in common, so that they were not computed again."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens used by a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens | None = None

    @classmethod
    def of(cls, results: Sequence[Result]) -> Usage:
        """The token counts of all answers to one prompt."""
        prompt, completion = results[0].prompt_tokens, sum(result.completion_tokens for result in results)
        cached = PromptTokens(cached_tokens=min(result.cached_tokens for result in results))
        total = prompt + completion
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, prompt_tokens_details=cached)


class ModelCard(BaseModel):
    """An entry of /v1/models: `parent` is the base model of an adapter, `root` the start of the lineage.

    `task` is "generation" or what the head of an encoder predicts, and `labels` are those that POST /v1/classify gives to a
    text without being told any.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["slmtune"] = "slmtune"
    root: str
    parent: str | None
    task: str
    labels: list[str] | None
