"""Make one call: find an instance, send the call, check the response.

A call is sent again only where it is certain that the algorithm did not get it.
"""

import base64
import json
import time
from http import HTTPStatus

from sqlalchemy import select

from api.errors import ApiError, Code
from api.invocation.call_chain import CallChain
from api.invocation.call_errors import call_errors
from api.invocation.nested_calls import NestedCalls
from api.invocation.runner_client import (
    ERROR_PREFIX,
    NO_RESULT,
    InstanceEndedError,
    NotDeliveredError,
    RunnerRequest,
    RunnerResponse,
    error_response,
    read_object,
    send,
)
from api.invocation.target import (
    ReadyInstance,
    Target,
    find_target_again,
    not_delivered_in_time,
    require_capacity,
    wait_until_ready,
)
from shared.db.engine import database
from shared.db.models import Instance, InstanceState
from shared.errors import UnavailableError
from shared.instances.endpoints import SCHEME
from shared.instances.states import mark_stopped
from shared.settings import settings

RESPONSE_MARGIN_SECONDS = 5.0
"""Time after the algorithm's timeout, for the runner to report it and for the response to arrive."""
RETRY_INTERVAL_SECONDS = 0.1
MAX_ENDED_INSTANCES = 3
"""If this many containers end before they take one call, the algorithm is the cause."""
ENDED_RETRY_SECONDS = 30
RUNNER_ERROR_CODES = {
    HTTPStatus.BAD_REQUEST: Code.INVALID_JSON,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: Code.INVALID_REQUEST,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: Code.INVALID_REQUEST,
}
RESPONSE_PREFIXES = (b'{"result": ', ERROR_PREFIX)
"""How a runner's response begins. It can have many megabytes, so the rest is left to the caller to parse."""
JSON = "application/json"
TEXT = "text/plain"
BINARY = "application/octet-stream"


def call(
    target: Target,
    request: RunnerRequest,
    chain: CallChain,
    *,
    timeout: float,
    deadline: float,
    request_id: str | None = None,
) -> RunnerResponse:
    """Make a call until its deadline (monotonic clock), a cold start included. `timeout` is what its caller asked for.

    Raises:
        UnavailableError: the call did not start, because no instance could take it.
        NoImageError: there is no image to run.
        ApiError: the runner cannot read the input.
    """
    ended = 0
    while True:
        require_capacity(target, chain.instances)
        instance = wait_until_ready(target, deadline, chain.require_wanted, request_id=request_id)
        reason = "What ran was stopped."
        if instance is not None:
            chain.require_possible(target.algorithm, instance.id)
            try:
                response = _checked(_send(target, instance, request, chain, deadline))
            except NotDeliveredError as error:
                reason = f"The last try failed: {error}."
                ended += isinstance(error, InstanceEndedError) and _mark_ended(instance, error)
            else:
                call_errors.keep(target, response, timeout=timeout)
                return response
        if ended >= MAX_ENDED_INSTANCES:
            raise UnavailableError(
                f"The containers of {target.algorithm.path} ended {ended} times before they took the call. {reason}",
                retry_after=ENDED_RETRY_SECONDS,
            )
        if time.monotonic() + RETRY_INTERVAL_SECONDS >= deadline:
            raise not_delivered_in_time(target, reason)
        time.sleep(RETRY_INTERVAL_SECONDS)
        target = find_target_again(target)


def _send(
    target: Target, instance: ReadyInstance, request: RunnerRequest, chain: CallChain, deadline: float
) -> RunnerResponse:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise NotDeliveredError("the time was over")
    nested = None
    if target.algorithm.settings.get("pipeline_enabled") is not False:
        nested = NestedCalls(chain, target.algorithm, instance.id, deadline=deadline)
    return send(
        instance.endpoint,
        request,
        timeout=remaining,
        serving_dir=settings().resolved_serving_dir,
        deadline=deadline + RESPONSE_MARGIN_SECONDS,
        max_bytes=settings().call_result_max_bytes,
        nested=nested,
    )


def _mark_ended(instance: ReadyInstance, error: InstanceEndedError) -> bool:
    """Record that a container has ended, unless it was being stopped. Return whether this recorded it.

    Pods are left to the cluster, which replaces them.
    """
    if not instance.endpoint.startswith(SCHEME):
        return False
    with database().writing() as session:
        state = session.scalar(select(Instance.state).where(Instance.id == instance.id))
        return state == InstanceState.READY and mark_stopped(session, instance.id, f"Its container has ended: {error}.")


def _checked(response: RunnerResponse) -> RunnerResponse:
    """Return the response, or an error in its place if no runner responds so.

    Raises:
        ApiError: the runner cannot read the input.
    """
    if response.status == HTTPStatus.OK and response.body.startswith(RESPONSE_PREFIXES):
        return response
    code = RUNNER_ERROR_CODES.get(HTTPStatus(response.status)) if response.status in set(HTTPStatus) else None
    if code is None:
        return error_response(NO_RESULT)
    error = read_object(response.body).get("error")
    message = str(error.get("message", "")) if isinstance(error, dict) else ""
    raise ApiError(response.status, code, message or "The runner refused the input.")


def raw_result(response: RunnerResponse) -> tuple[bytes, str]:
    """Return the bare result and its content type, for `output=raw`. An error stays JSON."""
    value = read_object(response.body)
    if "error" in value:
        return response.body, JSON
    if "result" not in value:
        return error_response(NO_RESULT).body, JSON
    metadata = value.get("metadata")
    return _raw_value(value["result"], metadata.get("content_type") if isinstance(metadata, dict) else None)


def _raw_value(result: object, kind: object) -> tuple[bytes, str]:
    if kind == "void":
        return b"", TEXT
    if kind == "text" and isinstance(result, str):
        return result.encode("utf-8", "replace"), TEXT
    if kind != "binary" or not isinstance(result, str):
        return json.dumps(result).encode(), JSON
    try:
        return base64.b64decode(result, validate=True), BINARY
    except ValueError:
        return error_response("The algorithm's result says that it is binary, but is no base64.").body, JSON
