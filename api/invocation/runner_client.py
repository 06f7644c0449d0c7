"""Send one call to the runner of an instance: once, within a deadline, with a limit on the size of the response."""

import errno
import http.client
import json
import socket
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from api.invocation.nested_calls import CallResponse, NestedCalls
from shared.errors import LongshoreError
from shared.instances.endpoints import connect

ALGORITHM_ERROR = "AlgorithmError"
TIMEOUT_ERROR = "TimeoutError"
ERROR_PREFIX = b'{"error": '
"""How a response begins that is an error."""
CONTAINER_ENDED = (
    "The algorithm's container ended during the call, so whether the call was done is not known. It was not sent "
    "again; the next call is served by another container."
)
NO_RESULT = "The algorithm's container answered with no result; its log may say why. The call was not sent again."
MIN_TIMEOUT_SECONDS = 0.001
CONTAINER_GONE_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOTSOCK, errno.ECONNREFUSED, errno.ECONNRESET})
"""Errors of connecting to a container that has ended. Others do not show that, for example when this process has no
file descriptor left, or when too many connections wait to be accepted."""


class NotDeliveredError(LongshoreError):
    """Raised when the call did not reach the algorithm. It may be sent again."""


class InstanceEndedError(NotDeliveredError):
    """Raised when the call did not reach the algorithm because its container has ended or is being stopped."""


@dataclass(frozen=True)
class RunnerRequest:
    """The input of a call, and whether its caller gets what the algorithm prints."""

    body: bytes
    content_type: str | None
    stdout: bool = False


@dataclass(frozen=True)
class RunnerResponse:
    """The response of a runner, or an error in its place."""

    status: int
    body: bytes


def send(
    endpoint: str,
    request: RunnerRequest,
    *,
    timeout: float,
    serving_dir: Path,
    deadline: float,
    max_bytes: int,
    nested: NestedCalls | None = None,
) -> RunnerResponse:
    """Send a call and return the response.

    `timeout` is that of the algorithm, in seconds; `deadline` is that of the whole exchange (monotonic clock).
    `nested` makes the calls that the algorithm makes meanwhile; None: it may make none.

    Raises:
        NotDeliveredError: the algorithm did not get the call.
    """
    began_at = time.monotonic()
    try:
        connection = connect(endpoint, serving_dir, seconds=timeout)
    except OSError as error:
        error_type = InstanceEndedError if error.errno in CONTAINER_GONE_ERRNOS else NotDeliveredError
        raise error_type(error.strerror or str(error) or "no answer to the connection") from None
    connection.deadline = deadline
    client = http.client.HTTPConnection("runner")
    client.response_class = partial(CallResponse, nested)  # type: ignore[assignment]
    client.sock = connection
    if nested is not None:
        nested.connect(connection)
    remaining = timeout - (time.monotonic() - began_at)  # connecting may have waited until the runner accepted
    try:
        if remaining < MIN_TIMEOUT_SECONDS:
            raise NotDeliveredError("the time was over")
        response = _exchange(client, request, remaining, max_bytes, nested)
    except TimeoutError:
        return error_response(
            f"The algorithm's container did not answer within the timeout of {timeout:g} seconds.", TIMEOUT_ERROR
        )
    except (OSError, http.client.IncompleteRead):
        return error_response(CONTAINER_ENDED)
    except (http.client.HTTPException, ValueError):
        return error_response(NO_RESULT)
    finally:
        if nested is not None:
            nested.end()
        client.close()
    if response.status == http.client.SERVICE_UNAVAILABLE and not _has_begun(nested):
        raise InstanceEndedError("it is being stopped")
    return response


def _exchange(
    client: http.client.HTTPConnection,
    request: RunnerRequest,
    timeout: float,
    max_bytes: int,
    nested: NestedCalls | None,
) -> RunnerResponse:
    headers = {} if request.content_type is None else {"Content-Type": request.content_type}
    query = f"/?timeout={timeout:.3f}&stdout={'true' if request.stdout else 'false'}"
    query += f"&outgoing={nested.max_parallel if nested is not None else 0}"
    is_unix = client.sock is not None and client.sock.family == socket.AF_UNIX
    is_sent = True
    try:
        client.request("POST", query, request.body, headers)
    except (BrokenPipeError, ConnectionResetError):
        is_sent = False  # a runner starts only with a complete call; its response may say why it rejects this one
    try:
        response = client.getresponse()
    except (OSError, http.client.HTTPException) as error:
        # Linux resets a unix connection whose other end is closed before it was accepted or before everything was read;
        # after that, the stream just ends. Over TCP a reset does not show that the call was not read.
        is_reset = isinstance(error, ConnectionResetError) and not isinstance(error, http.client.RemoteDisconnected)
        if not _has_begun(nested) and (not is_sent or (is_unix and is_reset)):
            raise InstanceEndedError("it ended before it took the call") from None
        raise
    return _read(response, max_bytes)


def _has_begun(nested: NestedCalls | None) -> bool:
    """Return whether the algorithm certainly got the call, because it made calls itself."""
    return nested is not None and nested.has_begun


def _read(response: http.client.HTTPResponse, max_bytes: int) -> RunnerResponse:
    is_too_large = response.length is not None and response.length > max_bytes
    body = b"" if is_too_large else response.read(max_bytes + 1)
    if is_too_large or len(body) > max_bytes:
        return error_response(
            f"The algorithm's answer is larger than {max_bytes} bytes, which is the limit; return less."
        )
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    return RunnerResponse(response.status, body)


def error_response(message: str, error_type: str = ALGORITHM_ERROR) -> RunnerResponse:
    """Return an error in the form of the platform, for a call without a response: its clients show the message."""
    error: dict[str, Any] = {"message": message, "stacktrace": "", "stack_trace": "", "error_type": error_type}
    return RunnerResponse(http.client.OK, json.dumps({"error": error}).encode())


def read_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object. Return an empty one for anything else: the algorithm's container is not trusted."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
