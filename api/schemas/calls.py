"""Calls of algorithms: their query, and what is told of those that nobody waited for."""

from typing import Literal

from pydantic import Field

from api.schemas.base import Moment, Query, ResponseModel, Uuid
from shared.db.models import CallState

DEFAULT_TIMEOUT_SECONDS = 300.0
MAX_TIMEOUT_SECONDS = 3000.0


class CallQuery(Query):
    """How to call."""

    timeout: float = Field(
        DEFAULT_TIMEOUT_SECONDS,
        gt=0,
        le=MAX_TIMEOUT_SECONDS,
        allow_inf_nan=False,
        description="Seconds that the call may take, a cold start included.",
    )
    output: Literal["raw", "void"] | None = None
    stdout: bool = False


class AsyncCallAccepted(ResponseModel):
    """A call that nobody waits for was begun."""

    protocol: Literal["void"] = Field("void", serialization_alias="async")
    request_id: Uuid


class CallErrorResponse(ResponseModel):
    """What a call ended with."""

    message: str
    error_type: str | None


class AsyncCallResponse(ResponseModel):
    """A call with `output=void`."""

    left_out = frozenset({"error", "duration", "ended_at"})

    request_id: Uuid
    state: CallState
    algorithm: str
    git_hash: str
    error: CallErrorResponse | None = None
    duration: float | None = None
    """How long the algorithm had it, in seconds."""
    created_at: Moment
    ended_at: Moment | None = None
