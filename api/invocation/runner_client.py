"""One call handed to a runner: sent once, answered within a deadline and within bounds."""

import errno
import http.client
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.instances.endpoints import connect

ALGORITHM_ERROR = "AlgorithmError"
TIMEOUT_ERROR = "TimeoutError"
BROKEN_OFF = (
    "The algorithm's container ended during the call, so whether the call was done is not known. It was not sent "
    "again; the next call is served by another container."
)
RUNNER_FAILED = "The algorithm's container answered with no result; its log may say why. The call was not sent again."
MIN_TIMEOUT_SECONDS = 0.001
"""The least timeout that a runner is told."""
NOBODY_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENOTSOCK, errno.ECONNREFUSED, errno.ECONNRESET})
"""What a connection to what has ended fails with; anything else says nothing of it, as that this process has no
descriptor left, or that too many wait to be accepted."""


class NotDeliveredError(Exception):
    """The call did not reach the algorithm, so it may be sent again."""


class EndedError(NotDeliveredError):
    """The same, because what was to take the call has ended, or is about to."""


@dataclass(frozen=True)
class RunnerRequest:
    """What a runner is sent."""

    body: bytes
    content_type: str | None
    stdout: bool = False


@dataclass(frozen=True)
class RunnerResponse:
    """What a runner answered, or what stands in for an answer that never came."""

    status: int
    body: bytes


def exchange(
    endpoint: str, sent: RunnerRequest, *, timeout: float, serving_dir: Path, deadline: float, most: int
) -> RunnerResponse:
    """Send a call and bring back the answer; `timeout` is the algorithm's, in seconds, `deadline` that of the whole.

    Raises:
        NotDeliveredError: the algorithm did not get the call.
    """
    asked_at = time.monotonic()
    try:
        connection = connect(endpoint, serving_dir, seconds=timeout)
    except OSError as error:
        kind = EndedError if error.errno in NOBODY_THERE else NotDeliveredError
        raise kind(error.strerror or str(error) or "no answer to the connection") from None
    connection.deadline = deadline
    talk = http.client.HTTPConnection("runner")
    talk.sock = connection
    left = timeout - (time.monotonic() - asked_at)  # it may have waited until there was a place for it
    try:
        if left < MIN_TIMEOUT_SECONDS:
            raise NotDeliveredError("the time was over")
        answered = _ask(talk, sent, left, most)
    except TimeoutError:
        message = f"The algorithm's container did not answer within the timeout of {timeout:g} seconds."
        return stand_in(message, TIMEOUT_ERROR)
    except (OSError, http.client.IncompleteRead):
        return stand_in(BROKEN_OFF)
    except (http.client.HTTPException, ValueError):
        return stand_in(RUNNER_FAILED)
    finally:
        talk.close()
    if answered.status == http.client.SERVICE_UNAVAILABLE:
        raise EndedError("it is being stopped")
    return answered


def _ask(talk: http.client.HTTPConnection, sent: RunnerRequest, timeout: float, most: int) -> RunnerResponse:
    over_unix = talk.sock is not None and talk.sock.family == socket.AF_UNIX
    headers = {} if sent.content_type is None else {"Content-Type": sent.content_type}
    query = f"/?timeout={timeout:.3f}&stdout={'true' if sent.stdout else 'false'}"
    whole = True
    try:
        talk.request("POST", query, sent.body, headers)
    except (BrokenPipeError, ConnectionResetError):
        whole = False  # a runner begins with a whole call only; it may have said why it did not want this one
    try:
        response = talk.getresponse()
    except (OSError, http.client.HTTPException) as error:
        if not whole or (over_unix and _was_left_unread(error)):
            raise EndedError("it ended before it took the call") from None
        raise
    return _read(response, most)


def _was_left_unread(error: Exception) -> bool:
    """Whether the runner had not read the whole call.

    Linux resets a unix connection whose other end is closed before all in it was read, or before it was accepted;
    after that the stream just ends. Over TCP a reset says nothing of the kind.
    """
    return isinstance(error, ConnectionResetError) and not isinstance(error, http.client.RemoteDisconnected)


def _read(response: http.client.HTTPResponse, most: int) -> RunnerResponse:
    if response.length is not None and response.length > most:
        return _too_large(most)
    body = response.read(most + 1)
    if len(body) > most:
        return _too_large(most)
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    return RunnerResponse(response.status, body)


def _too_large(most: int) -> RunnerResponse:
    return stand_in(f"The algorithm's answer is larger than {most} bytes, the most that is handed on; return less.")


def stand_in(message: str, error_type: str = ALGORITHM_ERROR) -> RunnerResponse:
    """An answer in the platform's form for a call that has none: clients show its message."""
    error: dict[str, Any] = {"message": message, "stacktrace": "", "stack_trace": "", "error_type": error_type}
    return RunnerResponse(http.client.OK, json.dumps({"error": error}).encode())
