"""`/healthz` and `/readyz`: whether the process responds, and whether it can work, with the state of the workers."""

from apiflask import APIBlueprint
from flask import Response, g
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from api import dispatch
from api.error_codes import Code
from api.responses import json_response
from api.schemas.base import ErrorDetail, ResponseModel
from shared.db.engine import database
from shared.jobs.worker_processes import live_workers, sweep_age_seconds

blueprint = APIBlueprint("health", __name__, tag="Health")

UNREACHABLE = "does not respond"


class AliveResponse(ResponseModel):
    """The process responds."""

    status: str


class WorkerResponse(ResponseModel):
    """A live worker process, and the problem that keeps it from working."""

    name: str
    queues: list[str]
    ready: bool
    problem: str | None


class ReadyResponse(ResponseModel):
    """Whether database and broker, which every request needs, respond. The workers are for information."""

    omitted_if_null = frozenset({"error"})

    status: str
    database: str
    broker: str
    seconds_since_sweep: int | None
    """Seconds since the last sweep for due, lost and stalled jobs."""
    workers: list[WorkerResponse]
    error: ErrorDetail | None = None
    """The cause, if the status is 503."""


@blueprint.get("/healthz")
@blueprint.output(AliveResponse)
def alive() -> Response:
    """Return 200 while the process responds."""
    return json_response(AliveResponse(status="alive"))


@blueprint.get("/readyz")
@blueprint.output(ReadyResponse)
def ready() -> Response:
    """Return whether database and broker are reachable (503 if not), and the state of the workers."""
    database_state, sweep_age, workers = _read_database()
    try:
        dispatch.ping_broker()
        broker_state = "reachable"
    except (OperationalError, OSError):
        broker_state = UNREACHABLE
    is_ready = UNREACHABLE not in (database_state, broker_state)
    message = f"The database: {database_state}; the broker (Redis): {broker_state}. Start what does not respond."
    response = ReadyResponse(
        status="ready" if is_ready else "not ready",
        database=database_state,
        broker=broker_state,
        seconds_since_sweep=sweep_age,
        workers=workers,
        error=None if is_ready else ErrorDetail(id=g.request_id, code=Code.INVALID_REQUEST, message=message),
    )
    return json_response(response, 200 if is_ready else 503)


def _read_database() -> tuple[str, int | None, list[WorkerResponse]]:
    try:
        with database().reading() as session:
            workers = [
                WorkerResponse(
                    name=worker.name,
                    queues=[queue for queue in worker.queues.split(",") if queue],
                    ready=worker.problem is None,
                    problem=worker.problem,
                )
                for worker in live_workers(session)
            ]
            return "reachable", sweep_age_seconds(session), workers
    except SQLAlchemyError:
        return UNREACHABLE, None, []
