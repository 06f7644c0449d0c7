"""Calling algorithms, and asking how calls ended that nobody waited for."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import Response, g, request
from sqlalchemy import Row

from api.authentication import caller
from api.error_codes import ApiError, Code
from api.invocation.async_calls import async_calls
from api.invocation.call import JSON, call, raw_result
from api.invocation.runner_client import RunnerRequest
from api.invocation.target import Target, find_target
from api.invocation.target_cache import target_cache
from api.responses import json_response
from api.routing import v1_blueprint
from api.schemas.calls import AsyncCallAccepted, AsyncCallResponse, CallErrorResponse, CallQuery
from shared.db.clock import rfc3339
from shared.db.engine import database
from shared.db.models import Algorithm, CallState
from shared.errors import NotFoundError, PermissionDeniedError
from shared.invocation.async_calls import CALL_WITH_NAMES, LOST, mark_overdue_lost
from shared.invocation.versions import find_called_version
from shared.settings import settings

blueprint = v1_blueprint("calls")

ADDRESS = "/v1/algo/"
"""How the addresses of calls begin."""
CONTENT_TYPES = ("application/json", "text/plain", "application/octet-stream")
View = TypeVar("View", bound=Callable[..., Any])


def _call_route(view: View) -> View:
    """Route calls of an algorithm, named OWNER/NAME or by its id, with or without a version."""
    for name in ("<owner:owner>/<name>", "<algorithm_id:algorithm_id>"):
        for version in ("", "/<version>"):
            blueprint.add_url_rule(f"/algo/{name}{version}", view_func=view, methods=["POST"])
    return view


@_call_route
@blueprint.input(CallQuery, location="query", arg_name="query")
def call_algorithm(algorithm: str, query: CallQuery, version: str | None = None) -> Response:
    """Call an algorithm with the body as its input.

    An error of the algorithm itself is answered with 200 and `error`; what else goes wrong has a status of its own.
    """
    sent = _read_input(query)
    found = _find(algorithm, version, query)
    if query.output == "void":
        begun = async_calls.start(caller(), found, sent, timeout=query.timeout, request_id=g.request_id)
        return json_response(AsyncCallAccepted(request_id=begun))
    answered = call(found, sent, timeout=query.timeout, request_id=g.request_id)
    body, content_type = raw_result(answered) if query.output == "raw" else (answered.body, JSON)
    return Response(body, mimetype=content_type)


@blueprint.get("/requests/<request_id>")
@blueprint.output(AsyncCallResponse)
def show_request(request_id: str) -> Response:
    """How a call with `output=void` is going, or how it ended. Its result is not kept."""
    rows = database().ask(CALL_WITH_NAMES, request=request_id.lower())
    if rows and rows[0].overdue and rows[0].state == CallState.RUNNING:
        with database().writing() as session:
            mark_overdue_lost(session)
        rows = database().ask(CALL_WITH_NAMES, request=request_id.lower())
    return json_response(_shown(_readable(rows, request_id)))


def _read_input(query: CallQuery) -> RunnerRequest:
    """The body, as it came.

    Raises:
        ApiError: a content type that algorithms do not take.
        werkzeug.exceptions.RequestEntityTooLarge: it is larger than a call may be.
    """
    if request.mimetype and request.mimetype not in CONTENT_TYPES:
        raise ApiError(
            415,
            Code.INVALID_REQUEST,
            f"The body is {request.mimetype[:100]}; an algorithm takes {', '.join(CONTENT_TYPES)}: say which it is in "
            "Content-Type.",
        )
    request.max_content_length = settings().call_max_bytes
    return RunnerRequest(request.get_data(cache=False), request.content_type, stdout=query.stdout)


def _find(algorithm: str, version: str | None, query: CallQuery) -> Target:
    def find() -> Target:
        with database().reading() as session:
            called, meant = find_called_version(session, caller(), algorithm, version)
            _refuse_reading_along(called, query)
            return find_target(session, called, meant)

    found = target_cache.find(caller(), algorithm, version, find)
    _refuse_reading_along(found.algorithm, query)
    return found


def _refuse_reading_along(called: Algorithm, query: CallQuery) -> None:
    if query.stdout and not caller().owns(called.owner):
        raise PermissionDeniedError(f"Only {called.owner} and administrators may read what {called.path} prints.")


def _readable(rows: Sequence[Row[Any]], request_id: str) -> Row[Any]:
    if not rows or not caller().owns(rows[0].caller):
        raise NotFoundError(f"No call with the id {request_id[:80]!r}; it was never made, or is not kept any more.")
    return rows[0]


def _shown(row: Row[Any]) -> AsyncCallResponse:
    error = None
    if row.state in (CallState.FAILED, CallState.LOST):
        error = CallErrorResponse(message=row.message or LOST, error_type=row.error_type)
    return AsyncCallResponse(
        request_id=row.id,
        state=row.state,
        algorithm=f"{row.owner}/{row.name}",
        git_hash=row.git_hash,
        error=error,
        duration=None if row.duration_ms is None else row.duration_ms / 1000,
        created_at=rfc3339(row.created_at) or "",
        ended_at=rfc3339(row.ended_at),
    )
