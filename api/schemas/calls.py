"""Calls of algorithms: their query parameters, and the state of asynchronous calls."""

from typing import Any, Literal

from pydantic import Field
from sqlalchemy import Row

from api.schemas.base import Query, ResponseModel, Timestamp, Uuid
from shared.db.clock import rfc3339
from shared.db.models import CallError, CallState
from shared.invocation.async_calls import LOST

DEFAULT_TIMEOUT_SECONDS = 300.0
MAX_TIMEOUT_SECONDS = 3000.0


class CallQuery(Query):
    """Options of a call."""

    timeout: float = Field(
        DEFAULT_TIMEOUT_SECONDS,
        gt=0,
        le=MAX_TIMEOUT_SECONDS,
        allow_inf_nan=False,
        description="Seconds until the call times out, a cold start included.",
    )
    output: Literal["raw", "void"] | None = None
    stdout: bool = False


class AsyncCallAccepted(ResponseModel):
    """An asynchronous call that was accepted."""

    protocol: Literal["void"] = Field("void", serialization_alias="async")
    request_id: Uuid


class CallErrorResponse(ResponseModel):
    """The error of a call."""

    message: str
    error_type: str | None


class AsyncCallResponse(ResponseModel):
    """A call with `output=void`."""

    omitted_if_null = frozenset({"error", "duration", "ended_at"})

    request_id: Uuid
    state: CallState
    algorithm: str
    git_hash: str
    error: CallErrorResponse | None = None
    duration: float | None = None
    created_at: Timestamp
    ended_at: Timestamp | None = None


class LoggedErrorResponse(ResponseModel):
    """An error that an algorithm returned for a call: the time, the version, the message and the stack trace."""

    logs: str


def present_logged_error(error: CallError) -> LoggedErrorResponse:
    return LoggedErrorResponse(logs=f"{rfc3339(error.created_at)} {error.logs}")


def present_call(row: Row[Any]) -> AsyncCallResponse:
    return AsyncCallResponse(
        request_id=row.id,
        state=row.state,
        algorithm=f"{row.owner}/{row.name}",
        git_hash=row.git_hash,
        error=CallErrorResponse(message=row.message or LOST, error_type=row.error_type)
        if row.state in (CallState.FAILED, CallState.LOST)
        else None,
        duration=None if row.duration_ms is None else row.duration_ms / 1000,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
