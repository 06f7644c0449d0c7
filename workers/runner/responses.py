"""What a call is answered with: the result or the error of the algorithm, in the platform's form."""

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
    """What came of a call."""

    body: Body
    """`{"result", "metadata": {"content_type"}}` or `{"error": {…}}`."""
    duration: float = 0.0
    """How long the algorithm had the call, in seconds."""
    printed: str = ""
    """What it wrote to standard output meanwhile."""

    def encoded(self, with_printed: bool) -> bytes:
        """The answer as JSON, with its metadata.

        A result that holds NaN or an infinity is no JSON (RFC 8259, section 6), which the platform refused too.
        """
        metadata = {"duration": self.duration, **({"stdout": self.printed} if with_printed else {})}
        try:
            return _encode(self.body, metadata)
        except (ValueError, RecursionError):
            message = (
                "The result cannot be written as JSON: it holds NaN or an infinite number, or is nested too deeply. "
                "Return null or a shallower value instead."
            )
            return _encode(error(message), metadata)


@dataclass
class CallFailure:
    """A reason to answer calls with an error before the algorithm has seen them."""

    message: str
    error_type: str
    stacktrace: str = ""

    def answer(self) -> CallResponse:
        """The answer that says so."""
        return CallResponse(error(self.message, self.error_type, self.stacktrace))


def error(message: str, error_type: str = ALGORITHM_ERROR, stacktrace: str = "") -> Body:
    """The body of an error; the platform's clients read either spelling of the stack trace."""
    return {
        "error": {
            "message": message,
            "stacktrace": stacktrace,
            "stack_trace": stacktrace,
            "error_type": error_type,
        }
    }


def body_from(line: bytes) -> Body:
    """The body for the line of JSON that came through the pipe."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        told = said["error"]
        return error(
            str(told.get("message", "")),
            str(told.get("error_type", ALGORITHM_ERROR)),
            str(told.get("stacktrace", "")),
        )
    if isinstance(said, dict) and "result" in said:
        metadata = said.get("metadata")
        content_type = metadata.get("content_type") if isinstance(metadata, dict) else None
        return {"result": said["result"], "metadata": {"content_type": str(content_type or "json")}}
    return error("The algorithm's process answered with something other than the development kit's form of JSON.")


def _encode(body: Body, metadata: Body) -> bytes:
    whole = {**body, "metadata": {**body.get("metadata", {}), **metadata}}
    return json.dumps(whole, allow_nan=False).encode("ascii")
