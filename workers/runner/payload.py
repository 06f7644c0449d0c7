"""Parse the query and the body of a call, and write the body as the development kit's line of JSON."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from email.message import Message
from typing import NoReturn
from urllib.parse import parse_qs

DEFAULT_TIMEOUT = 300.0
MAX_TIMEOUT = 3000.0
TRUTHS = {"true": True, "false": False}
TOO_DEEP = "The body is JSON nested too deeply."


class InvalidCallError(Exception):
    """Raised when a request is not a valid call; `status` is the HTTP status of the response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class CallParameters:
    """The query parameters of a call."""

    timeout: float = DEFAULT_TIMEOUT
    """Seconds."""
    stdout: bool = False
    """Whether the response has the text that the algorithm wrote to standard output."""


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
    return CallParameters(timeout=timeout, stdout=stdout)


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
