"""What all bodies share: how strictly they are read, and what is left out of answers until it is known.

Errors as callers read them.
"""

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

ANNOTATIONS = ("title", "description", "default")
EMPTY_OBJECT: JsonSchemaValue = {"type": "object", "maxProperties": 0}
ABSENT: JsonSchemaValue = {"anyOf": [{"type": "null"}, EMPTY_OBJECT]}
"""What stands for a field that is not given, where a rule speaks of fields that go together."""


class RequestModel(BaseModel):
    """A request body: unknown fields are ignored, types are not bent, an empty object stands for an absent field."""

    model_config = ConfigDict(extra="ignore", strict=True)
    beyond_schema: ClassVar[frozenset[str]] = frozenset()
    """Fields with a form that JSON Schema has no words for, such as a certificate. The document tells of them where
    nobody takes a text that fits the schema for one that is right."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(core_schema))
        fields = described.get("properties", {})
        for name in set(fields) - set(described.get("required", [])):
            fields[name] = or_empty_object(fields[name])
        if described.get("additionalProperties") is False:
            described["additionalProperties"] = EMPTY_OBJECT
        if cls.beyond_schema:
            described["x-further-properties"] = {name: fields.pop(name) for name in sorted(cls.beyond_schema)}
            names = ", ".join(f"`{name}`" for name in sorted(cls.beyond_schema))
            described["description"] = f"{described['description']} Takes {names} too (x-further-properties)."
        return described

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty_objects(cls, given: Any) -> Any:
        # The published Python client sends {} for everything it was not given.
        return {name: value for name, value in given.items() if value != {}} if isinstance(given, dict) else given


class Query(BaseModel):
    """Query parameters, which are text on the wire."""

    model_config = ConfigDict(extra="ignore")


class ResponseModel(BaseModel):
    """An answer. Fields named in `left_out` are absent, not null, while they are unknown."""

    left_out: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(core_schema))
        fields = described["properties"]
        described["required"] = [name for name in fields if name not in cls.left_out]
        for name in cls.left_out:
            fields[name] = without_null(fields[name])
        return described

    @model_serializer(mode="wrap")
    def _leave_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        shown: dict[str, Any] = handler(self)
        return {name: value for name, value in shown.items() if value is not None or name not in self.left_out}


def or_empty_object(described: JsonSchemaValue) -> JsonSchemaValue:
    """The schema of an optional field of a body, for which the published Python client sends {}."""
    about: JsonSchemaValue = {name: described[name] for name in ANNOTATIONS if name in described}
    rest: JsonSchemaValue = {name: value for name, value in described.items() if name not in about}
    kinds = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    return {**about, "anyOf": [*kinds, EMPTY_OBJECT]}


def without_null(described: JsonSchemaValue) -> JsonSchemaValue:
    """The schema of what is never null: a parameter on the wire, a field that is left out while it is unknown."""
    kinds = [kind for kind in described.get("anyOf", []) if kind != {"type": "null"}]
    rest = {name: value for name, value in described.items() if name != "anyOf"}
    if rest.get("default", ...) is None:
        del rest["default"]
    if len(kinds) == 1:
        return {**rest, **kinds[0]}
    return {**rest, "anyOf": kinds} if kinds else rest


def _whole(value: object) -> object:
    # 1.0 is an integer in JSON Schema, and so for whoever reads the document.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _storable(text: str) -> str:
    # JSON can spell half of a surrogate pair; UTF-8, and with it every database, cannot.
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("must not have half of a surrogate pair")
    # NUL cannot be stored (PostgreSQL); the others have no business in names and turn logs into lies.
    if any(ord(character) < 32 and character not in "\t\n\r" for character in text):
        raise ValueError("must not have control characters")
    return text


STORABLE = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F]*$"
Storable = Annotated[str, AfterValidator(_storable)]
Text = Annotated[Storable, Field(json_schema_extra={"pattern": STORABLE})]
LongText = Annotated[Text, StringConstraints(max_length=65_536)]
ShortText = Annotated[Text, StringConstraints(max_length=1_024)]
WHOLE = BeforeValidator(_whole)
"""Goes behind the limits of an `int`: before them, the document would not tell the limits."""
Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC, with milliseconds and `Z`."""


class ErrorDetail(ResponseModel):
    """What went wrong, and what to do."""

    id: str
    code: int
    message: str


class ErrorResponse(ResponseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail
