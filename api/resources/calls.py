"""Calls of algorithms, and the results of asynchronous calls."""

import time
from contextlib import nullcontext

from flask import Response, g, request

from api.authentication import caller
from api.errors import ApiError, Code
from api.invocation.async_calls import async_calls
from api.invocation.call import JSON, call, raw_result
from api.invocation.call_chain import request_chain
from api.invocation.push_wait import push_waits
from api.invocation.runner_client import RunnerRequest
from api.invocation.target import AwaitedPush, NoImageError, Target, find_target
from api.invocation.target_cache import target_cache
from api.owner_slots import push_wait_slots
from api.routing import json_response, v1_blueprint
from api.schemas.calls import AsyncCallAccepted, AsyncCallResponse, CallQuery, present_call
from shared.db.engine import database
from shared.db.models import Algorithm, CallState
from shared.errors import NotFoundError, PermissionDeniedError
from shared.invocation.async_calls import CALL_WITH_NAMES, mark_overdue_lost
from shared.invocation.versions import find_called_version
from shared.settings import settings

blueprint = v1_blueprint("calls")

CONTENT_TYPES = ("application/json", "text/plain", "application/octet-stream")
TEXT_OF_GENERATED_CLIENT = "application/text"
"""The generated client's name of `text/plain`."""


@blueprint.post("/algo/<algorithm_id:algorithm_id>/<version>")
@blueprint.post("/algo/<algorithm_id:algorithm_id>")
@blueprint.post("/algo/<owner:owner>/<name>/<version>")
@blueprint.post("/algo/<owner:owner>/<name>")
@blueprint.input(CallQuery, location="query", arg_name="query")
def call_algorithm(algorithm_name: str, query: CallQuery, version: str | None = None) -> Response:
    """Call an algorithm with the body as its input.

    An error of the algorithm itself is a response with the status 200 and `error`; other errors have their own status.
    """
    try:
        return _call(algorithm_name, query, version)
    except NoImageError as error:
        raise error.told_to(caller()) from None


def _call(algorithm_name: str, query: CallQuery, version: str | None) -> Response:
    runner_request = _read_input(query)
    target = _find(algorithm_name, version, query)
    chain = request_chain()
    timeout = chain.shortened(query.timeout)
    if query.output == "void":
        return json_response(
            AsyncCallAccepted(
                request_id=async_calls.start(
                    caller(), target, runner_request, chain, timeout=timeout, request_id=g.request_id
                )
            )
        )
    deadline = time.monotonic() + timeout
    with chain.slot() if chain.acting is None else nullcontext():  # a nested call has its slot already
        if isinstance(target, AwaitedPush):
            with chain.slot(push_wait_slots()):
                target = push_waits.wait(target, deadline, chain.require_wanted)
        result = call(target, runner_request, chain, timeout=timeout, deadline=deadline, request_id=g.request_id)
    body, content_type = raw_result(result) if query.output == "raw" else (result.body, JSON)
    return Response(body, mimetype=content_type)


@blueprint.get("/requests/<request_id>")
@blueprint.output(AsyncCallResponse)
def get_request(request_id: str) -> Response:
    """Return the state of a call with `output=void`. Its result is not kept."""
    rows = database().ask(CALL_WITH_NAMES, request=request_id.lower())
    is_readable = bool(rows) and caller().owns(rows[0].caller) and caller().is_for(rows[0].owner, rows[0].name)
    if is_readable and rows[0].overdue and rows[0].state == CallState.RUNNING:
        with database().writing() as session:
            mark_overdue_lost(session)
        rows = database().ask(CALL_WITH_NAMES, request=request_id.lower())
    if not is_readable:
        raise NotFoundError(f"No call has the id {request_id[:80]!r}; it never existed, or is not kept any more.")
    return json_response(present_call(rows[0]))


def _read_input(query: CallQuery) -> RunnerRequest:
    """Return the body unchanged.

    Raises:
        ApiError: a content type that algorithms do not take.
        werkzeug.exceptions.RequestEntityTooLarge: it is larger than the limit for calls.
    """
    content_type = request.content_type
    if request.mimetype == TEXT_OF_GENERATED_CLIENT:
        # The parameters stay as they were sent: parsed ones can have characters that no header may have.
        content_type = "text/plain" + str(content_type).lstrip()[len(TEXT_OF_GENERATED_CLIENT) :]
    elif request.mimetype and request.mimetype not in CONTENT_TYPES:
        raise ApiError(
            415,
            Code.INVALID_REQUEST,
            f"The body is {request.mimetype[:100]}; algorithms take {', '.join(CONTENT_TYPES)}: name one of them in "
            "Content-Type.",
        )
    request.max_content_length = settings().call_max_bytes
    return RunnerRequest(request.get_data(cache=False), content_type, stdout=query.stdout)


def _find(algorithm_name: str, version: str | None, query: CallQuery) -> Target | AwaitedPush:
    def find() -> Target | AwaitedPush:
        with database().reading() as session:
            called, found_version = find_called_version(session, caller(), algorithm_name, version)
            _require_output_access(called, query)
            return find_target(session, called, found_version)

    target = target_cache.find(caller(), algorithm_name, version, find)
    _require_output_access(target.algorithm, query)
    return target


def _require_output_access(algorithm: Algorithm, query: CallQuery) -> None:
    if query.stdout and not caller().owns(algorithm.owner):
        raise PermissionDeniedError(f"Only {algorithm.owner} and administrators may read what {algorithm.path} prints.")
