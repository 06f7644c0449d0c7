"""`/healthz` and `/readyz`: alive; and able to work, with what the workers say of themselves."""

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


class AliveResponse(ResponseModel):
    """The process answers."""

    status: str


class WorkerResponse(ResponseModel):
    """A live worker, and what keeps it from working."""

    name: str
    queues: list[str]
    ready: bool
    problem: str | None


class ReadyResponse(ResponseModel):
    """Whether the parts that every request needs answer; the workers are for information."""

    left_out = frozenset({"error"})

    status: str
    database: str
    broker: str
    seconds_since_sweep: int | None
    """How long ago the sweep for due, lost and stalled jobs ran last."""
    workers: list[WorkerResponse]
    error: ErrorDetail | None = None
    """What is missing, where something is: a 503 is an error like any other."""


@blueprint.get("/healthz")
@blueprint.output(AliveResponse)
def alive() -> Response:
    """Alive."""
    return json_response(AliveResponse(status="alive"))


@blueprint.get("/readyz")
@blueprint.output(ReadyResponse)
def ready() -> Response:
    """Whether database and broker are reachable (503 when not), and how the workers are."""
    database_says, swept, workers = _ask_database()
    broker_says = _ask_broker()
    good = database_says == broker_says == "reachable"
    shown = ReadyResponse(
        status="ready" if good else "not ready",
        database=database_says,
        broker=broker_says,
        seconds_since_sweep=swept,
        workers=workers,
        error=None if good else _error(database_says, broker_says),
    )
    return json_response(shown, 200 if good else 503)


def _error(database_says: str, broker_says: str) -> ErrorDetail:
    message = f"The database: {database_says}; the broker (Redis): {broker_says}. Start what does not answer."
    return ErrorDetail(id=g.get("request_id", ""), code=Code.INVALID_REQUEST, message=message)


def _ask_database() -> tuple[str, int | None, list[WorkerResponse]]:
    try:
        with database().reading() as session:
            nodes = live_workers(session)
            swept = sweep_age_seconds(session)
    except SQLAlchemyError:
        return "does not answer", None, []
    shown = [
        WorkerResponse(
            name=node.name,
            queues=[queue for queue in node.queues.split(",") if queue],
            ready=node.problem is None,
            problem=node.problem,
        )
        for node in nodes
    ]
    return "reachable", swept, shown


def _ask_broker() -> str:
    try:
        dispatch.ping_broker()
    except (OperationalError, OSError):
        return "does not answer"
    return "reachable"
