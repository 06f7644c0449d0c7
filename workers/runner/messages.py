"""Calls as messages: the parameters and input of a request, and the result or error of the algorithm as a response."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from email.message import Message
from typing import Any, Dict, NoReturn  # noqa: UP035 - Python 3.8 cannot subscript dict at run time
from urllib.parse import parse_qs

DEFAULT_TIMEOUT = 300.0
MAX_TIMEOUT = 3000.0
TRUTHS = {"true": True, "false": False}
TOO_DEEP = "The body is JSON nested too deeply."
Body = Dict[str, Any]  # noqa: UP006 - as above

ALGORITHM_ERROR = "AlgorithmError"
LOADING_ERROR = "LoadingError"
TIMEOUT_ERROR = "TimeoutError"


class InvalidCallError(Exception):
    """Raised when a request is not a valid call; `status` is the HTTP status of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class CallParameters:
    """The query parameters of a call.

    `timeout` is in seconds. `stdout`: the response has the text that the algorithm wrote to standard output.
    `outgoing`: how many calls of its own the algorithm may have in progress at the same time; the sender makes them.
    """

    timeout: float = DEFAULT_TIMEOUT
    stdout: bool = False
    outgoing: int = 0


def parse_query(query: str) -> CallParameters:
    """Parse the query of a call, ignoring unknown parameters.

    Raises:
        InvalidCallError: 400, a value is invalid.
    """
    try:
        given = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
        timeout = float(given.get("timeout", DEFAULT_TIMEOUT))
    except ValueError:
        timeout = math.nan
    if not 0 < timeout <= MAX_TIMEOUT:
        raise InvalidCallError(400, f"timeout must be a number of seconds above 0 and up to {MAX_TIMEOUT:g}.")
    stdout = TRUTHS.get(given.get("stdout", "false").lower())
    if stdout is None:
        raise InvalidCallError(400, "stdout must be true or false.")
    outgoing = given.get("outgoing", "0")
    if not re.fullmatch(r"[0-9]{1,4}", outgoing):
        raise InvalidCallError(400, "outgoing must be a whole number of up to four digits.")
    return CallParameters(timeout=timeout, stdout=stdout, outgoing=int(outgoing))


def request_line(content_type: str | None, body: bytes) -> bytes:
    """Return the kit's line for a body: `{"content_type": "json|text|binary", "data": …}` in ASCII, without a line end.

    Raises:
        InvalidCallError: 400, the body does not match its content type; 415, the content type is not supported.
    """
    header = Message()
    header["Content-Type"] = content_type or "application/json"
    kind = header["Content-Type"].split(";")[0].strip().lower()
    if kind == "application/json":
        return _line("json", _parse_json(body))
    if kind == "text/plain":
        return _line("text", _decode(body, header.get_content_charset("utf-8")))
    if kind == "application/octet-stream":
        return _line("binary", base64.b64encode(body).decode("ascii"))
    raise InvalidCallError(
        415,
        f"The content type {kind} is not supported; send application/json, text/plain or application/octet-stream.",
    )


def _line(content_type: str, data: object) -> bytes:
    try:
        return json.dumps({"content_type": content_type, "data": data}).encode("ascii")
    except RecursionError:
        raise InvalidCallError(400, TOO_DEEP) from None


def _parse_json(body: bytes) -> object:
    try:
        return json.loads(body, parse_constant=_reject_constant)
    except RecursionError:
        raise InvalidCallError(400, TOO_DEEP) from None
    except ValueError as error:
        raise InvalidCallError(400, f"The body is not valid JSON: {error}") from None


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(name + " is not JSON")


def _decode(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset)
    except LookupError:
        raise InvalidCallError(415, f"The charset {charset} is not supported; send the text as UTF-8.") from None
    except ValueError:
        raise InvalidCallError(400, f"The body is not valid text in the charset {charset}.") from None


@dataclass
class CallResponse:
    """The response to one call.

    `body` is `{"result", "metadata": {"content_type"}}` or `{"error": {…}}`. `duration` is the seconds that the
    algorithm worked on the call, `stdout` the text that it wrote to standard output meanwhile.
    """

    body: Body
    duration: float = 0.0
    stdout: str = ""

    def encode(self, with_stdout: bool) -> bytes:
        """Return the response as JSON, with its metadata.

        A result with NaN or an infinity is not JSON (RFC 8259, section 6); the platform rejected it too.
        """
        metadata = {"duration": self.duration, **({"stdout": self.stdout} if with_stdout else {})}
        try:
            return _encode(self.body, metadata)
        except (ValueError, RecursionError):
            return _encode(
                error_body(
                    "The result cannot be written as JSON: it has NaN or an infinite number, or is nested too deeply. "
                    "Return null or a shallower value instead."
                ),
                metadata,
            )


@dataclass
class CallFailure:
    """A reason why calls fail before the algorithm gets them."""

    message: str
    error_type: str
    stacktrace: str = ""

    def response(self) -> CallResponse:
        return CallResponse(error_body(self.message, self.error_type, self.stacktrace))


def error_body(message: str, error_type: str = ALGORITHM_ERROR, stacktrace: str = "") -> Body:
    """Return the body of an error; the platform's clients read the stack trace under either name."""
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
            str(error.get("error_type") or ALGORITHM_ERROR),
            str(error.get("stacktrace", "")),
        )
    if isinstance(message, dict) and "result" in message:
        metadata = message.get("metadata")
        content_type = metadata.get("content_type") if isinstance(metadata, dict) else None
        return {"result": message["result"], "metadata": {"content_type": str(content_type or "json")}}
    return error_body("The response of the algorithm's process does not have the development kit's form of JSON.")


def _encode(body: Body, metadata: Body) -> bytes:
    return json.dumps({**body, "metadata": {**body.get("metadata", {}), **metadata}}, allow_nan=False).encode("ascii")
