"""Strict parsing of requests into models, the messages about invalid requests, and registry credentials in requests."""

import json
import re
from typing import Any, TypeVar

from apiflask.schema_adapters.pydantic import PydanticAdapter
from flask import Request
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session
from typing_extensions import override

from api.errors import ApiError, Code
from api.schemas.pushes import PushCredentialsRequest
from api.schemas.registries import CredentialsRequest, PushAccountRequest
from shared.commands.push import PushRequest
from shared.errors import InvalidInputError
from shared.registries.access import address_of
from shared.registries.credentials import CredentialsUpdate
from shared.registries.rows import find_registry
from shared.registry.address import RegistryAddress
from shared.registry.credentials import Credentials, InvalidCredentialsError, from_registry_auth

Model = TypeVar("Model", bound=BaseModel)
MAX_PROBLEMS = 5
# Messages of pydantic that are reworded: one says "items" of a text, the other contains our class names.
TEXT_LENGTH = re.compile(r"^Value should have at (most|least) (\d+) items? after validation, not")
OBJECT_EXPECTED = re.compile(r"^Input should be a valid dictionary or instance of \w+$")


class StrictAdapter(PydanticAdapter):
    """Parses bodies and queries as the contract says. The rest is inherited from APIFlask."""

    @override
    def validate_input(self, request: Request, location: str, **_kwargs: Any) -> BaseModel:
        """Return the model of a body or query.

        Raises:
            InvalidInputError, ApiError: the message says which fields are wrong, and how.
        """
        values = parse_json_object(request) if location == "json" else request.args.to_dict()
        model: BaseModel = parse_model(self.model_class, values)
        return model


def parse_model(model_class: type[Model], values: object) -> Model:
    """Return the model of values from a request.

    Raises:
        InvalidInputError: the message says which fields are wrong, and how.
    """
    try:
        return model_class.model_validate(values)
    except ValidationError as error:
        raise InvalidInputError(_describe(error)) from None


def parse_json_object(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object. An empty body and `null` stand for an empty object.

    Raises:
        ApiError: the content type is not JSON, or the body is invalid JSON.
        InvalidInputError: the body is not a JSON object.
    """
    raw = request.get_data(cache=True)
    if not raw:
        return {}
    if request.mimetype and request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise ApiError(
            415,
            Code.INVALID_REQUEST,
            f"The body is {request.mimetype[:100]}; send JSON with Content-Type: application/json.",
        )
    value = parse_json(raw)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInputError("The body must be a JSON object.")
    return value


def parse_json(raw: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ApiError: it is none.
    """
    try:
        return json.loads(raw, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, Code.INVALID_JSON, f"The body is not valid JSON: {_json_problem(error)}.") from None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _json_problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _describe(error: ValidationError) -> str:
    """Describe the problems of each field. A value from the request is never repeated: it may be a password."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    lines = [_describe_problem(problem["loc"], problem["msg"]) for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"and {len(problems) - MAX_PROBLEMS} more")
    return "; ".join(lines) + "."


def _describe_problem(location: tuple[int | str, ...], message: str) -> str:
    field = ".".join(str(part) for part in location) or "body"
    message = TEXT_LENGTH.sub(r"Must have at \1 \2 characters, not", message.removeprefix("Value error, "))
    message = OBJECT_EXPECTED.sub("Must be a JSON object", message)
    return f"{field}: {message[:1].lower()}{message[1:].removesuffix('.')}"


def parse_credentials(body: CredentialsRequest, registry: RegistryAddress | None) -> Credentials | None:
    """Return the credentials of a request for a registry; None if it has none.

    A docker `auths` document may contain credentials of several registries: only those of `registry` are used.

    Raises:
        InvalidInputError: half of a pair, or an unreadable registry_auth.
    """
    if body.registry_auth and (body.registry_username or body.registry_password):
        raise InvalidInputError("Give registry_auth, or registry_username and registry_password, not both.")
    pair = _parse_pair("registry", body.registry_username, body.registry_password)
    try:
        return from_registry_auth(body.registry_auth, registry) if body.registry_auth else pair
    except InvalidCredentialsError as error:
        raise InvalidInputError(str(error)) from None


def parse_credentials_update(body: CredentialsRequest, registry: RegistryAddress | None) -> CredentialsUpdate:
    """Return the change of a registry's credentials for pulls and pushes.

    Raises:
        InvalidInputError: as `parse_credentials`.
    """
    is_named = not body.model_fields_set.isdisjoint(CredentialsRequest.model_fields)
    return CredentialsUpdate(parse_credentials(body, registry), removed=is_named)


def parse_push_account(body: PushAccountRequest) -> CredentialsUpdate:
    """Return the change of stored credentials for pushes.

    Raises:
        InvalidInputError: half of a pair.
    """
    is_named = not body.model_fields_set.isdisjoint(PushAccountRequest.model_fields)
    return CredentialsUpdate(_parse_pair("push", body.push_username, body.push_password), removed=is_named)


def _parse_pair(prefix: str, username: str | None, password: str | None) -> Credentials | None:
    if bool(username) != bool(password):
        raise InvalidInputError(f"{prefix}_username and {prefix}_password go together; give both, or neither.")
    try:
        return Credentials(username, password) if username and password else None
    except InvalidCredentialsError as error:
        raise InvalidInputError(str(error)) from None


def push_request(session: Session, push: PushCredentialsRequest) -> PushRequest:
    """Return the requested push to one registry.

    Raises:
        NotFoundError: no such registry.
        InvalidInputError: its credentials are invalid.
    """
    registry = find_registry(session, push.registry_id)
    return PushRequest(registry.id, parse_credentials(push, address_of(registry)))
