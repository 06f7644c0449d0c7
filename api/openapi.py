"""Additions to the generated OpenAPI document: keys, errors, parameters and response headers."""

import json
import re
from collections.abc import Iterator
from typing import Any

from api.schemas import patterns
from api.schemas.base import ErrorResponse, without_null
from api.schemas.source import IgnoredWebhookResponse
from shared.environments import accepted_names
from shared.settings import settings

Part = dict[str, Any]

MAYBE_ENQUEUES = ("/pushes/retry", "/adopt", "/nodes/refresh")
ENQUEUES = ("/compile", "/version", "/versions", "/registry", *MAYBE_ENQUEUES)
"""The ends of paths whose POST enqueues a job; those in `MAYBE_ENQUEUES` only if there is anything to do."""
SOURCE_WEBHOOK = "/scm/webhook"
"""The end of the path that takes the webhooks of repositories elsewhere, and no key."""
REQUEST_ID = {"X-Request-Id": {"description": "The id of the request, as in the logs.", "schema": {"type": "string"}}}
RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
ERRORS: dict[str, tuple[str, Part]] = {
    "400": ("The request is wrong.", {}),
    "401": (
        "There is no key, or it is unknown or revoked.",
        {"WWW-Authenticate": {"description": "`Simple`.", "schema": {"type": "string"}}},
    ),
    "403": ("The key is known, but not allowed to do this.", {}),
    "404": ("Something that the request names does not exist.", {}),
    "409": ("The request conflicts with the present state.", RETRY_AFTER),
    "413": ("The body is too large.", {}),
    "415": ("The body is not JSON.", {}),
    "429": ("Too many requests with this key.", RETRY_AFTER),
    "503": ("A part of the installation does not respond. Send the request again.", RETRY_AFTER),
    "default": ("An error: what happened, why, and what to do.", {}),
}
KEY_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "`Simple KEY`, `Bearer KEY` or the key alone.",
}
REQUEST_HEADERS = (
    (
        "Prefer",
        "`wait=N`: respond when the job has ended, or after N seconds (RFC 7240).",
        {"type": "string"},
    ),
    (
        "Idempotency-Key",
        "A request with the same key within 24 hours returns the same job; 409 for another request.",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
)
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event received.",
    "schema": {"type": "string"},
}
RESPONSE_HEADERS: dict[str, Part] = {
    "Location": {"description": "The path of the job.", "required": True, "schema": {"type": "string"}},
    "X-Job-Id": {
        "description": "The id of the job.",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    },
    "Preference-Applied": {"description": "The longest time that the request waited.", "schema": {"type": "string"}},
}


def complete_document(document: Part) -> Part:
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": KEY_SCHEME}
    error = ErrorResponse.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = components.setdefault("schemas", {})
    schemas.update({**error.pop("$defs"), "ErrorResponse": error})
    _add_configured_values(schemas)
    document = _merge_models(document)
    schemas = document["components"]["schemas"]
    for path, method, operation in _operations(document):
        words = path.replace("{", "").replace("}", "").strip("/").split("/")
        operation["operationId"] = "_".join([method, *words]).replace("-", "_").replace(".", "_")
        _describe_parameters(operation)
        _describe_body(operation, schemas)
        if path.startswith("/v1/"):
            operation["security"] = [] if path.endswith(SOURCE_WEBHOOK) else [{"key": []}]
        if path.endswith(SOURCE_WEBHOOK):
            _describe_source_webhook(operation)
        if method == "post" and path.endswith(ENQUEUES):
            _describe_enqueueing(operation, always=not path.endswith(MAYBE_ENQUEUES))
        _describe_errors(operation)
    return document


def _merge_models(document: Part) -> Part:
    """Return the document with every model once: APIFlask repeats a nested model for each outer one (OUTER.INNER)."""
    merged: Part = json.loads(
        re.sub(r'"#/components/schemas/\w+\.(\w+)"', r'"#/components/schemas/\1"', json.dumps(document))
    )
    schemas = merged["components"]["schemas"]
    merged["components"]["schemas"] = {name.rpartition(".")[2]: schemas[name] for name in schemas}
    return merged


def _operations(document: Part) -> Iterator[tuple[str, str, Part]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if isinstance(operation, dict) and "responses" in operation:
                yield path, method, operation


def _add_configured_values(schemas: Part) -> None:
    """Add the environments and the form of repository URLs that the settings of this installation allow."""
    environments = accepted_names()
    repository_url = patterns.repository_url(settings())
    for name, schema in schemas.items():
        fields = schema.get("properties", {})
        if name.endswith("SettingsRequest") and "language" in fields:
            for field in ("language", "algorithm_environment", "package_set"):
                _text_schema(fields[field])["enum"] = environments
        if name.endswith("SourceRequest"):
            _text_schema(fields["repository_https_url"])["pattern"] = repository_url


def _text_schema(field: Part) -> Part:
    text: Part = next(choice for choice in field["anyOf"] if choice.get("type") == "string")
    return text


def _describe_parameters(operation: Part) -> None:
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
        operation.setdefault("parameters", []).append(LAST_EVENT_ID)
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            parameter["schema"] = patterns.path_parameter(parameter["name"])
        else:
            schema = parameter["schema"] = without_null(parameter["schema"])
            if schema.get("type") == "boolean":
                del schema["type"]
                schema["anyOf"] = [{"type": "boolean"}, {"type": "string", "pattern": patterns.BOOLEAN}]


def _describe_body(operation: Part, schemas: Part) -> None:
    """Allow an empty body, or null, where no field is required: either stands for an empty object."""
    body = operation.get("requestBody")
    if body is None:
        return
    content = body["content"]["application/json"]
    schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
    body["required"] = bool(schema.get("required") or schema.get("minProperties"))
    if not body["required"]:
        content["schema"] = {"anyOf": [content["schema"], {"type": "null"}]}


def _describe_source_webhook(operation: Part) -> None:
    payload = {"type": "object", "description": "The event, in the form of the service that sends it."}
    form = {"type": "object", "properties": {"payload": {"type": "string"}}, "required": ["payload"]}
    operation["requestBody"] = {
        "required": False,
        "content": {"application/json": {"schema": payload}, "application/x-www-form-urlencoded": {"schema": form}},
    }
    operation["responses"]["202"] = {
        "description": "The delivery is known, and nothing is compiled for it.",
        "content": {"application/json": {"schema": IgnoredWebhookResponse.model_json_schema()}},
    }


def _describe_enqueueing(operation: Part, *, always: bool) -> None:
    operation.setdefault("parameters", []).extend(
        {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
        for name, description, schema in REQUEST_HEADERS
    )
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            response["headers"] = {
                name: {**header, "required": always and header.get("required", False)}
                for name, header in RESPONSE_HEADERS.items()
            }


def _describe_errors(operation: Part) -> None:
    responses = operation["responses"]
    for status, (description, headers) in ERRORS.items():
        if _is_possible(status, operation):
            content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
            responses.setdefault(status, {"description": description, "headers": dict(headers), "content": content})
    for response in responses.values():
        response.setdefault("headers", {}).update(REQUEST_ID)


def _is_possible(status: str, operation: Part) -> bool:
    if status in ("401", "403"):
        return bool(operation.get("security"))
    if status == "429":
        return "security" in operation
    return status not in ("413", "415") or "requestBody" in operation
