"""What the OpenAPI document says beyond routes and models: keys, errors, parameters, and the headers of answers."""

import json
import re
from collections.abc import Iterator
from typing import Any

from api.schemas import patterns
from api.schemas.base import ErrorResponse, without_null
from shared.settings import settings

Part = dict[str, Any]

MAY_ENQUEUE_NOTHING = ("/pushes/retry", "/nodes/refresh")
ENQUEUES = tuple(("post", end) for end in ("/compile", "/version", "/versions", "/registry", *MAY_ENQUEUE_NOTHING))
REQUEST_ID = {"X-Request-Id": {"description": "The id of the request, as in the log.", "schema": {"type": "string"}}}
RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
ERRORS: dict[str, tuple[str, Part]] = {
    "400": ("The request is wrong.", {}),
    "401": (
        "No key, or one that is not known.",
        {"WWW-Authenticate": {"description": "`Simple`.", "schema": {"type": "string"}}},
    ),
    "403": ("The key is known, but may not do this.", {}),
    "404": ("What was named does not exist.", {}),
    "409": ("It cannot be done in the present state.", RETRY_AFTER),
    "413": ("The body is too large.", {}),
    "415": ("The body is no JSON.", {}),
    "429": ("Too many requests with this key.", RETRY_AFTER),
    "503": ("Something of ours is away. Send it again.", RETRY_AFTER),
    "default": ("Refused or failed: what and why, and what to do.", {}),
}
KEY_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "`Simple KEY`, `Bearer KEY` or the bare key.",
}
SENT = (
    (
        "Prefer",
        "`wait=N`: answer when the job has ended, or after N seconds (RFC 7240).",
        {"type": "string"},
    ),
    (
        "Idempotency-Key",
        "The same key within 24 hours gives the same job back; 409 with another request.",
        {"type": "string", "minLength": 1, "maxLength": 255},
    ),
)
LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event that was heard.",
    "schema": {"type": "string"},
}
ANSWERED: dict[str, Part] = {
    "Location": {"description": "The job of the call.", "required": True, "schema": {"type": "string"}},
    "X-Job-Id": {
        "description": "The id of that job.",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    },
    "Preference-Applied": {"description": "How long was waited at most.", "schema": {"type": "string"}},
}


def complete(document: Part) -> Part:
    """The document with what holds for every operation, and for each that enqueues."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": KEY_SCHEME}
    described = ErrorResponse.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = components.setdefault("schemas", {})
    schemas.update({**described.pop("$defs"), "ErrorResponse": described})
    _name_what_is_configured(schemas)
    document = _shared_models(document)
    schemas = document["components"]["schemas"]
    for path, method, operation in _operations(document):
        operation["operationId"] = _operation_id(method, path)
        _describe_parameters(operation)
        _describe_body(operation, schemas)
        if path.startswith("/v1/"):
            operation["security"] = [{"key": []}]
        if any(method == verb and path.endswith(end) for verb, end in ENQUEUES):
            _describe_enqueueing(operation, always=not path.endswith(MAY_ENQUEUE_NOTHING))
        _describe_errors(operation)
    return document


def _shared_models(document: Part) -> Part:
    """Every model once: the framework describes those inside of another anew for each, as OUTER.INNER."""
    text = re.sub(r'"#/components/schemas/\w+\.(\w+)"', r'"#/components/schemas/\1"', json.dumps(document))
    shared: Part = json.loads(text)
    schemas = shared["components"]["schemas"]
    shared["components"]["schemas"] = {name.rpartition(".")[2]: schemas[name] for name in schemas}
    return shared


def _operations(document: Part) -> Iterator[tuple[str, str, Part]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if isinstance(operation, dict) and "responses" in operation:
                yield path, method, operation


def _operation_id(method: str, path: str) -> str:
    words = path.replace("{", "").replace("}", "").strip("/").split("/")
    return "_".join([method, *words]).replace("-", "_").replace(".", "_")


def _name_what_is_configured(schemas: Part) -> None:
    """Environments and repository addresses are what the settings of this installation take."""
    environments = sorted(settings().base_images)
    repository_url = patterns.repository_url(settings())
    for name, schema in schemas.items():
        fields = schema.get("properties", {})
        if name.endswith("SettingsRequest") and "language" in fields:
            for field in ("language", "algorithm_environment", "package_set"):
                _text_of(fields[field])["enum"] = environments
        if name.endswith("SourceRequest"):
            _text_of(fields["repository_https_url"])["pattern"] = repository_url


def _text_of(field: Part) -> Part:
    text: Part = next(kind for kind in field["anyOf"] if kind.get("type") == "string")
    return text


def _describe_parameters(operation: Part) -> None:
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
        operation.setdefault("parameters", []).append(LAST_EVENT)
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            parameter["schema"] = patterns.path_parameter(parameter["name"])
        else:
            parameter["schema"] = _on_the_wire(without_null(parameter["schema"]))


def _on_the_wire(schema: Part) -> Part:
    if schema.get("type") != "boolean":
        return schema
    about = {name: value for name, value in schema.items() if name != "type"}
    return {**about, "anyOf": [{"type": "boolean"}, {"type": "string", "pattern": patterns.BOOLEAN}]}


def _describe_body(operation: Part, schemas: Part) -> None:
    """Nothing, or null, stands for an empty object: right where no field is needed."""
    body = operation.get("requestBody")
    if body is None:
        return
    content = body["content"]["application/json"]
    described = schemas[content["schema"]["$ref"].rpartition("/")[2]]
    body["required"] = bool(described.get("required") or described.get("minProperties"))
    if not body["required"]:
        content["schema"] = {"anyOf": [content["schema"], {"type": "null"}]}


def _describe_enqueueing(operation: Part, *, always: bool) -> None:
    operation.setdefault("parameters", []).extend(
        {"name": name, "in": "header", "required": False, "description": said, "schema": schema}
        for name, said, schema in SENT
    )
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            response["headers"] = {
                name: {**header, "required": always and header.get("required", False)}
                for name, header in ANSWERED.items()
            }


def _describe_errors(operation: Part) -> None:
    responses = operation["responses"]
    for status, (said, headers) in ERRORS.items():
        if _can_be_answered(status, operation):
            content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
            responses.setdefault(status, {"description": said, "headers": dict(headers), "content": content})
    for response in responses.values():
        response.setdefault("headers", {}).update(REQUEST_ID)


def _can_be_answered(status: str, operation: Part) -> bool:
    if status in ("401", "403", "429"):
        return "security" in operation
    return status not in ("413", "415") or "requestBody" in operation
