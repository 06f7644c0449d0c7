"""What all bodies share: how strictly they are read, and what is left out of answers until it is known."""

from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)


class Body(BaseModel):
    """A request body: unknown fields are ignored, types are not bent, an empty object stands for an absent field."""

    model_config = ConfigDict(extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty_objects(cls, given: Any) -> Any:
        # The published Python client sends {} for everything it was not given.
        return {name: value for name, value in given.items() if value != {}} if isinstance(given, dict) else given


class Query(BaseModel):
    """Query parameters, which are text on the wire."""

    model_config = ConfigDict(extra="ignore")


class Shown(BaseModel):
    """An answer. Fields named in `left_out` are absent, not null, while they are unknown."""

    left_out: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _leave_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        shown: dict[str, Any] = handler(self)
        return {name: value for name, value in shown.items() if value is not None or name not in self.left_out}


def _storable(text: str) -> str:
    # JSON can spell half of a surrogate pair; UTF-8, and with it every database, cannot.
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ValueError("must not have half of a surrogate pair")
    # NUL cannot be stored (PostgreSQL); the others have no business in names and turn logs into lies.
    if any(ord(character) < 32 and character not in "\t\n\r" for character in text):
        raise ValueError("must not have control characters")
    return text


Text = Annotated[str, AfterValidator(_storable)]
LongText = Annotated[Text, StringConstraints(max_length=65_536)]
ShortText = Annotated[Text, StringConstraints(max_length=1_024)]
