"""What the OpenAPI document says beyond routes and models: keys, errors, and the headers of calls that enqueue."""

from typing import Any

from api.schemas.errors import ErrorShown

ENQUEUES = tuple(("post", end) for end in ("/compile", "/version", "/versions", "/registry", "/pushes/retry"))
ERROR = {
    "description": "Refused or failed: what and why, and what to do.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorShown"}}},
}
KEY_SCHEME = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "`Simple KEY`, `Bearer KEY` or the bare key.",
}
SENT = (
    ("Prefer", "`wait=N`: answer when the job has ended, or after N seconds (RFC 7240)."),
    ("Idempotency-Key", "The same key within 24 hours gives the same job back; 409 with another request."),
)
ANSWERED = {
    "Location": {"description": "The job of the call.", "schema": {"type": "string"}},
    "X-Job-Id": {"description": "The id of that job.", "schema": {"type": "string", "format": "uuid"}},
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what holds for every operation of the v1 interface, and for each that enqueues."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": KEY_SCHEME}
    described = ErrorShown.model_json_schema(ref_template="#/components/schemas/{model}")
    components.setdefault("schemas", {}).update({**described.pop("$defs"), "ErrorShown": described})
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if not isinstance(operation, dict) or "responses" not in operation:
                continue
            operation["operationId"] = _operation_id(method, path)
            operation["responses"]["default"] = ERROR
            if path.startswith("/v1/"):
                operation["security"] = [{"key": []}]
            if any(method == verb and path.endswith(end) for verb, end in ENQUEUES):
                _describe_enqueueing(operation)
    return document


def _operation_id(method: str, path: str) -> str:
    words = path.replace("{", "").replace("}", "").strip("/").split("/")
    return "_".join([method, *words]).replace("-", "_").replace(".", "_")


def _describe_enqueueing(operation: dict[str, Any]) -> None:
    headers = [
        {"name": name, "in": "header", "required": False, "description": said, "schema": {"type": "string"}}
        for name, said in SENT
    ]
    operation.setdefault("parameters", []).extend(headers)
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            response["headers"] = ANSWERED
