"""The form that a request asks its answer to have: JSON, a regular expression or one of several choices."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from finetune.serve.api.request_fields import RequestPart
from finetune.serve.engine.constraint import MAX_REGEX, choice_grammar, json_grammar, regex_grammar

MAX_NAME, MAX_CHOICES, MAX_CHOICE_LENGTH = 64, 256, 256

Choice = Annotated[str, Field(min_length=1, max_length=MAX_CHOICE_LENGTH)]


class JsonSchema(RequestPart):
    """A schema that an answer follows. `strict` makes no difference: every answer follows it."""

    model_config = ConfigDict(strict=True, frozen=True, populate_by_name=True)
    name: str = Field(min_length=1, max_length=MAX_NAME)
    definition: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(RequestPart):
    """The form of an answer, as the API of OpenAI describes it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _require_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is needed for type json_schema, and only for it")
        return self

    def grammar(self) -> str | None:
        """The grammar of the answer; None is any text."""
        if self.type == "text":
            return None
        return json_grammar({"type": "object"} if self.json_schema is None else self.json_schema.definition)


class TextFormat(RequestPart):
    """The form of an answer, as the responses of OpenAI describe it: the schema and its name are beside the type."""

    model_config = ConfigDict(strict=True, frozen=True, populate_by_name=True)
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    definition: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _require_schema(self) -> Self:
        if (self.type == "json_schema") != (self.definition is not None):
            raise ValueError("schema is needed for type json_schema, and only for it")
        return self

    def to_response_format(self) -> ResponseFormat:
        """The same in the form of chat completions."""
        if self.definition is None:
            return ResponseFormat(type=self.type)
        return ResponseFormat(
            type=self.type, json_schema=JsonSchema(name=self.name or "answer", definition=self.definition)
        )


class StructuredOutputs(RequestPart):
    """The form of an answer, as vLLM describes it: one of these."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    json_: dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = Field(None, min_length=1, max_length=MAX_REGEX)
    choice: list[Choice] | None = Field(None, min_length=1, max_length=MAX_CHOICES)

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if [self.json_, self.regex, self.choice].count(None) != 2:
            raise ValueError("one of json, regex and choice is needed")
        return self

    def grammar(self) -> str:
        """The grammar of the answer."""
        if self.regex is not None:
            return regex_grammar(self.regex)
        return choice_grammar(self.choice) if self.choice is not None else json_grammar(self.json_ or {})
