"""Parsing of bodies: absent fields, text that no database can store, and error messages."""

import json
from typing import Any

import pytest
from flask import Flask, request

from api.request_parsing import StrictAdapter
from api.schemas.algorithms import AlgorithmRequest
from api.schemas.base import RequestModel
from api.schemas.registries import PauseRequest, RegistryRequest
from api.schemas.versions import CompileRequest, PublishRequest
from shared.errors import InvalidInputError


def read(model: type[RequestModel], body: object) -> RequestModel:
    """Return the model of a body as the API parses it."""
    with Flask(__name__).test_request_context(method="POST", data=json.dumps(body), content_type="application/json"):
        given = StrictAdapter(model).validate_input(request, "json")
    assert isinstance(given, model)
    return given


def refusal_of(model: type[RequestModel], body: object) -> str:
    """Return the error message of an invalid body."""
    with pytest.raises(InvalidInputError) as refused:
        read(model, body)
    return refused.value.message


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (CompileRequest, {"commitSha": {}, "registry_push_credentials": {}}),
        (PublishRequest, {"details": {}, "settings": {}, "version_info": {}, "source": {}, "commitSha": {}}),
        (PublishRequest, {"settings": {"algorithm_callability": {}}, "version_info": {"version_type": {}}}),
        (RegistryRequest, {"registry_url": "r.example.com", "name": {}, "registry_password": {}, "verify_tls": {}}),
        (AlgorithmRequest, {"name": "A", "details": {"label": "A", "summary": {}}, "settings": {}, "source": {}}),
    ],
)
def test_an_empty_object_stands_for_an_absent_field(model: type[RequestModel], body: dict[str, Any]) -> None:
    given = read(model, body)
    assert not {name for name in given.model_fields_set if body[name] == {}}


def test_half_of_a_surrogate_pair_is_refused() -> None:
    message = refusal_of(RegistryRequest, {"registry_url": "r.example.com", "name": "\ud800"})
    assert message == "name: must not have half of a surrogate pair."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": "x" * 33}, "name: must have at most 32 characters, not 33."),
        ({"name": 5}, "name: input should be a valid string."),
    ],
)
def test_what_is_wrong_is_said_in_words_for_callers(body: dict[str, Any], message: str) -> None:
    assert refusal_of(RegistryRequest, {"registry_url": "r.example.com", **body}) == message


def test_a_text_that_is_too_short_is_too_few_characters() -> None:
    assert refusal_of(PauseRequest, {"reason": ""}) == "reason: must have at least 1 characters, not 0."


def test_no_class_of_ours_shows_in_a_refusal() -> None:
    assert refusal_of(AlgorithmRequest, {"name": "A", "details": 5}) == "details: must be a JSON object."
