"""What the OpenAPI document has for every operation."""

import json
import re
from typing import Any

import pytest

from api.app import create_app


@pytest.fixture
def document() -> dict[str, Any]:
    """The OpenAPI document of the API."""
    with create_app().test_client() as client:
        described: dict[str, Any] = client.get("/openapi.json").get_json()
        return described


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return every method, path and operation."""
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "responses" in operation
    ]


def test_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_every_operation_says_how_it_fails_and_what_key_it_needs(document: dict[str, Any]) -> None:
    shown = document["components"]["schemas"]["ErrorResponse"]
    assert (
        shown["properties"]["error"]["$ref"].removeprefix("#/components/schemas/") in document["components"]["schemas"]
    )
    for _, path, operation in operations(document):
        error = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/ErrorResponse"}
        expected: list[Any] | None = (
            [] if path.endswith("/scm/webhook") else [{"key": []}] if path.startswith("/v1/") else None
        )
        assert operation.get("security") == expected


def test_calls_that_enqueue_tell_of_their_headers(document: dict[str, Any]) -> None:
    told = {
        f"{method} {path}"
        for method, path, operation in operations(document)
        if {"Prefer", "Idempotency-Key"} <= {each["name"] for each in operation.get("parameters", [])}
    }
    spelled = ("{algorithm_id}", "{owner}/{name}")
    ends = ("compile", "version", "versions", "versions/{git_hash}/registry")
    of_algorithms = {f"post /v1/algorithms/{name}/{end}" for name in spelled for end in ends}
    others = {"post /v1/pushes/retry", "post /v1/registries/{registry_id}/adopt", "post /v1/nodes/refresh"}
    assert told == of_algorithms | others


def test_only_what_callers_use_is_described(document: dict[str, Any]) -> None:
    assert {path for path in document["paths"] if not path.startswith("/v1/")} == {
        "/healthz",
        "/readyz",
        "/metrics",
    }


def test_limits_are_told_in_words_that_json_schema_knows(document: dict[str, Any]) -> None:
    """With a validator before the limits of a number, pydantic would write them as `ge` and `le`."""
    fields = document["components"]["schemas"]["RegistryRequest"]["properties"]
    assert {"type": "integer", "minimum": 1, "maximum": 10_000} in fields["max_pushes"]["anyOf"]
    assert not re.search(r'"(?:ge|le|gt|lt)":', json.dumps(document))
