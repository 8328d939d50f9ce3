"""Reads a request: which fields there are, which are refused by name, and which field is at fault.

Unsupported fields of the API are refused by name, unless their value requests nothing (`best_of: 1`, `tools: []`). Fields that
have no effect here, such as `user`, are ignored. Any other field is treated as a mistake.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from finetune.errors import did_you_mean
from finetune.serve.api.problem import ApiError

R = TypeVar("R", bound="RequestPart")

JSON_OBJECT = TypeAdapter(dict[str, Any])
MAX_KEY = 64  # characters of an unknown key that an error repeats

# Fields that would change the answer, with the values that request nothing.
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "audio": (),
    "background": (False,),
    "best_of": (1,),
    "conversation": (),
    "dimensions": (),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "include": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "presence_penalty": (0,),
    "previous_response_id": (),
    "reasoning": ({},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "web_search_options": (),
}
REQUIRES = {"stream_options": "stream", "top_logprobs": "logprobs"}
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
    for name, switch in REQUIRES.items():
        if getattr(request, name, None) and not getattr(request, switch, None):
            raise ApiError(400, f"{name}: only allowed with {switch}: true", param=name)
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
