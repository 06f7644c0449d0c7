"""Base classes and field types of all request and response bodies, and the body of errors."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import override

from shared.db.clock import rfc3339

EMPTY_OBJECT: JsonSchemaValue = {"type": "object", "maxProperties": 0}
EMPTY_TEXT: JsonSchemaValue = {"type": "string", "maxLength": 0}
ABSENT: JsonSchemaValue = {"anyOf": [{"type": "null"}, EMPTY_OBJECT]}
"""The schema of an absent field, for rules about fields that belong together."""
ABSENT_TEXT: JsonSchemaValue = {"anyOf": [*ABSENT["anyOf"], EMPTY_TEXT]}
"""The same of a field for which an empty text is the same as null."""


class RequestModel(BaseModel):
    """A request body. Unknown fields are ignored, types are not converted, an empty object means an absent field."""

    model_config = ConfigDict(extra="ignore", strict=True)
    further_properties: ClassVar[frozenset[str]] = frozenset()
    """Fields whose form JSON Schema cannot describe, such as a certificate. The document has them in
    `x-further-properties`, because a text that fits their schema may still be invalid."""

    @classmethod
    @override
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        fields = schema.get("properties", {})
        for name in set(fields) - set(schema.get("required", [])):
            fields[name] = or_empty_object(fields[name])
        if schema.get("additionalProperties") is False:
            schema["additionalProperties"] = EMPTY_OBJECT
        if cls.further_properties:
            schema["x-further-properties"] = {name: fields.pop(name) for name in sorted(cls.further_properties)}
            names = ", ".join(f"`{name}`" for name in sorted(cls.further_properties))
            schema["description"] = f"{schema['description']} Takes {names} too (x-further-properties)."
        return schema

    @model_validator(mode="before")
    @classmethod
    def _remove_empty_objects(cls, data: Any) -> Any:
        # The published Python client sends {} for every field without a value.
        return {name: value for name, value in data.items() if value != {}} if isinstance(data, dict) else data


def _refuse_present(value: object) -> object:
    if value is not None:
        raise ValueError("is not supported yet; leave it out")
    return value


NotSupportedYet = Annotated[None, BeforeValidator(_refuse_present, json_schema_input_type=None)]
"""A field of a later version: a request that relies on it is refused, not silently fulfilled without it."""


class Query(BaseModel):
    """Query parameters. Their values are sent as text, so they are converted."""

    model_config = ConfigDict(extra="ignore")


class ResponseModel(BaseModel):
    """A response body. The fields in `omitted_if_null` are absent instead of null."""

    omitted_if_null: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    @override
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        fields = schema["properties"]
        schema["required"] = [name for name in fields if name not in cls.omitted_if_null]
        for name in cls.omitted_if_null:
            fields[name] = without_null(fields[name])
        return schema

    @model_serializer(mode="wrap")
    def _omit_nulls(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        return {name: value for name, value in data.items() if value is not None or name not in self.omitted_if_null}


def or_empty_object(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Return the schema of an optional field of a request, for which the published Python client sends {}."""
    annotations: JsonSchemaValue = {
        name: schema[name] for name in ("title", "description", "default") if name in schema
    }
    rest: JsonSchemaValue = {name: value for name, value in schema.items() if name not in annotations}
    choices = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    return {**annotations, "anyOf": [*choices, EMPTY_OBJECT]}


def without_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Return the schema of a value that is never null: a query parameter, or a field that is absent instead."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    if rest.get("default", ...) is None:
        del rest["default"]
    if len(choices) == 1:
        return {**rest, **choices[0]}
    return {**rest, "anyOf": choices} if choices else rest


def none_if_empty(value: object) -> object:
    """Return None for an empty text, which clients send for a name or password that they do not have."""
    return None if value == "" else value


def _to_integer(value: object) -> object:
    # In JSON Schema, 1.0 is an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


STORABLE = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]*$"
"""Control characters, except for tabs and line breaks, are not stored."""


def _require_storable(text: str) -> str:
    # JSON can contain half of a surrogate pair; UTF-8, and so every database, cannot.
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("must not have half of a surrogate pair")
    # PostgreSQL cannot store NUL; the others are not needed in names and can falsify logs.
    if not re.match(STORABLE, text):
        raise ValueError("must not have control characters")
    return text


Storable = Annotated[str, AfterValidator(_require_storable)]
Text = Annotated[Storable, Field(json_schema_extra={"pattern": STORABLE})]
LongText = Annotated[Text, StringConstraints(max_length=65_536)]
ShortText = Annotated[Text, StringConstraints(max_length=1_024)]
WHOLE_NUMBER = BeforeValidator(_to_integer)
"""Stands after the limits of an `int`: before them, the limits would be missing in the OpenAPI document."""
Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Timestamp = Annotated[
    str,
    BeforeValidator(lambda value: rfc3339(value) if isinstance(value, int) else value),
    Field(json_schema_extra={"format": "date-time"}),
]
"""RFC 3339 in UTC, with milliseconds and `Z`; made from milliseconds since 1970, as the database has them."""


class ErrorDetail(ResponseModel):
    """An error: its request id, its code, and a message that says what to do."""

    id: str
    code: int
    message: str


class ErrorResponse(ResponseModel):
    """The body of every error response."""

    error: ErrorDetail
