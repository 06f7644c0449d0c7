"""Responses to calls: the algorithm's result or error, in the platform's form of JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict  # noqa: UP035 - Python 3.8 cannot subscript dict at run time

Body = Dict[str, Any]  # noqa: UP006 - as above

ALGORITHM_ERROR = "AlgorithmError"
LOADING_ERROR = "LoadingError"
TIMEOUT_ERROR = "TimeoutError"


@dataclass
class CallResponse:
    """The response to one call."""

    body: Body
    """`{"result", "metadata": {"content_type"}}` or `{"error": {…}}`."""
    duration: float = 0.0
    """Seconds that the algorithm worked on the call."""
    stdout: str = ""
    """Text that the algorithm wrote to standard output meanwhile."""

    def encode(self, with_stdout: bool) -> bytes:
        """Return the response as JSON, with its metadata.

        A result with NaN or an infinity is not JSON (RFC 8259, section 6); the platform rejected it too.
        """
        metadata = {"duration": self.duration, **({"stdout": self.stdout} if with_stdout else {})}
        try:
            return _encode(self.body, metadata)
        except (ValueError, RecursionError):
            message = (
                "The result cannot be written as JSON: it has NaN or an infinite number, or is nested too deeply. "
                "Return null or a shallower value instead."
            )
            return _encode(error_body(message), metadata)


@dataclass
class CallFailure:
    """A reason why calls fail before the algorithm gets them."""

    message: str
    error_type: str
    stacktrace: str = ""

    def response(self) -> CallResponse:
        return CallResponse(error_body(self.message, self.error_type, self.stacktrace))


def error_body(message: str, error_type: str = ALGORITHM_ERROR, stacktrace: str = "") -> Body:
    """Return the body of an error; the platform's clients read either spelling of the stack trace."""
    return {
        "error": {
            "message": message,
            "stacktrace": stacktrace,
            "stack_trace": stacktrace,
            "error_type": error_type,
        }
    }


def parse_result(line: bytes) -> Body:
    """Return the body for the line of JSON that the development kit wrote to the named pipe."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if isinstance(message, dict) and isinstance(message.get("error"), dict):
        error = message["error"]
        return error_body(
            str(error.get("message", "")),
            str(error.get("error_type", ALGORITHM_ERROR)),
            str(error.get("stacktrace", "")),
        )
    if isinstance(message, dict) and "result" in message:
        metadata = message.get("metadata")
        content_type = metadata.get("content_type") if isinstance(metadata, dict) else None
        return {"result": message["result"], "metadata": {"content_type": str(content_type or "json")}}
    return error_body("The response of the algorithm's process does not have the development kit's form of JSON.")


def _encode(body: Body, metadata: Body) -> bytes:
    complete = {**body, "metadata": {**body.get("metadata", {}), **metadata}}
    return json.dumps(complete, allow_nan=False).encode("ascii")
