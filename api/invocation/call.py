"""A call, from what serves it to its answer. It is sent again only where it is certain that it was not begun.

`output=raw`: the result alone, as what it is.
"""

import base64
import json
import time
from http import HTTPStatus
from typing import Any

from sqlalchemy import select

from api.error_codes import ApiError, Code
from api.invocation.runner_client import (
    RUNNER_FAILED,
    EndedError,
    NotDeliveredError,
    RunnerRequest,
    RunnerResponse,
    exchange,
    stand_in,
)
from api.invocation.target import Ready, Target, find_other_target, not_in_time, wait_until_ready
from shared.db.engine import database
from shared.db.models import Instance, InstanceState
from shared.errors import UnavailableError
from shared.instances.endpoints import SCHEME
from shared.instances.states import mark_stopped
from shared.settings import settings

TIMEOUT_SECONDS = 5.0
"""For the runner to say that the algorithm's time is over, and for the answer to come."""
PAUSE_SECONDS = 0.1
MAX_ENDED = 3
"""So many containers that end before they take one call are the algorithm's doing."""
REFUSED_BY_RUNNER = {
    HTTPStatus.BAD_REQUEST: Code.INVALID_JSON,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Code.INVALID_REQUEST,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Code.INVALID_REQUEST,
}
BEGINNINGS = (b'{"result": ', b'{"error": ')
"""What a runner's answer begins with. The whole is for its caller to read: it can have many megabytes."""


def call(found: Target, sent: RunnerRequest, *, timeout: float, request_id: str | None = None) -> RunnerResponse:
    """Make a call within `timeout` seconds, a cold start included.

    Raises:
        UnavailableError: the call did not start, because no instance could take it.
        ConflictError: there is no image to run.
        ApiError: the runner cannot read the input.
    """
    deadline = time.monotonic() + timeout
    ended = 0
    while True:
        ready = wait_until_ready(found, deadline, request_id=request_id)
        why = "What ran was stopped."
        if ready is not None:
            try:
                return _checked(_exchange(ready, sent, deadline))
            except NotDeliveredError as error:
                why = f"The last try failed: {error}."
                ended += isinstance(error, EndedError) and _ended(ready, why_ended=str(error))
        if ended >= MAX_ENDED:
            raise UnavailableError(
                f"The containers of {found.algorithm.path} ended {ended} times before they took the call. {why}",
                retry_after=30,
            )
        if time.monotonic() + PAUSE_SECONDS >= deadline:
            raise not_in_time(found, why)
        time.sleep(PAUSE_SECONDS)
        found = find_other_target(found)


def _exchange(ready: Ready, sent: RunnerRequest, deadline: float) -> RunnerResponse:
    left = deadline - time.monotonic()
    if left <= 0:
        raise NotDeliveredError("the time was over")
    return exchange(
        ready.endpoint,
        sent,
        timeout=left,
        serving_dir=settings().resolved_serving_dir,
        deadline=deadline + TIMEOUT_SECONDS,
        most=settings().call_result_max_bytes,
    )


def _ended(ready: Ready, *, why_ended: str) -> bool:
    """Write down that a container has ended, where nobody knows that it was to. Pods are the cluster's to replace."""
    if not ready.endpoint.startswith(SCHEME):
        return False
    with database().writing() as session:
        state = session.scalar(select(Instance.state).where(Instance.id == ready.instance_id))
        if state != InstanceState.READY:
            return False
        return mark_stopped(session, ready.instance_id, f"Its container has ended: {why_ended}.")


def _checked(answered: RunnerResponse) -> RunnerResponse:
    """The answer, where it is one.

    Raises:
        RequestError: the runner refused the input.
    """
    if answered.status == HTTPStatus.OK:
        return answered if answered.body.startswith(BEGINNINGS) else stand_in(RUNNER_FAILED)
    code = REFUSED_BY_RUNNER.get(HTTPStatus(answered.status)) if answered.status in set(HTTPStatus) else None
    if code is None:
        return stand_in(RUNNER_FAILED)
    raise ApiError(answered.status, code, _message_of(answered.body) or "The runner refused the input.")


def _message_of(body: bytes) -> str:
    error = read_object(body).get("error")
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one where it is none, for what an algorithm's container says is not to be trusted."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


JSON = "application/json"
TEXT = "text/plain"
BINARY = "application/octet-stream"


def raw_result(answered: RunnerResponse) -> tuple[bytes, str]:
    """The bare result and its content type; an error stays the JSON that it is."""
    said = read_object(answered.body)
    if "error" in said:
        return answered.body, JSON
    if "result" not in said:
        return stand_in(RUNNER_FAILED).body, JSON
    metadata = said.get("metadata")
    return _bare(said["result"], metadata.get("content_type") if isinstance(metadata, dict) else None)


def _bare(result: object, kind: object) -> tuple[bytes, str]:
    if kind == "void":
        return b"", TEXT
    if kind == "text" and isinstance(result, str):
        return result.encode("utf-8", "replace"), TEXT
    if kind != "binary" or not isinstance(result, str):
        return json.dumps(result).encode(), JSON
    try:
        return base64.b64decode(result, validate=True), BINARY
    except ValueError:
        return stand_in("The algorithm's result says that it is binary, but is no base64.").body, JSON
