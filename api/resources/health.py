"""`/healthz`, `/readyz` and `/metrics`: whether the process responds and can work, the workers, and the metrics.

Metrics are read from the database at every scrape: every API process returns the same values, and none are lost with a
process. They name no algorithm and no owner.
"""

import threading
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Generic, TypeVar

from apiflask import APIBlueprint
from flask import Response, g
from kombu.exceptions import OperationalError
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as PrometheusMetric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from api import dispatch
from api.authentication import sent_by_admin
from api.errors import Code
from api.routing import json_response
from api.schemas.base import ErrorDetail, ResponseModel
from shared.db.engine import database
from shared.jobs.worker_processes import live_workers, sweep_age_seconds
from shared.metrics import Metric, metrics

blueprint = APIBlueprint("health", __name__, tag="Health")

T = TypeVar("T")

UNREACHABLE = "does not respond"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TOTAL = "_total"
HELP = {
    "jobs": "Jobs that have not ended.",
    "jobs_waiting": "Jobs that only wait for a worker.",
    "jobs_waiting_oldest_seconds": "Seconds that the oldest of these has waited.",
    "pushes": "The latest push of every version and registry, by status.",
    "push_results_total": "Pushes that ended, by result.",
    "push_retries_total": "Failed attempts of pushes that were retried.",
    "pushes_stalled_total": "Pushes that were reported as stalled: unclaimed, lost or without progress.",
    "pushes_missing": "Pushes whose last good image is missing from its registry.",
    "workers": "Live workers, and whether they can work.",
    "registry_paused": "1 if no pushes go to a registry, because its circuit breaker is open or an operator paused it.",
    "registry_failures_in_a_row": "Failures of a registry that affect all pushes, since the last success.",
    "webhook_deliveries": "Deliveries to webhooks, by state.",
    "sweep_age_seconds": "Age of the last sweep for due, lost and stalled jobs.",
}


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
    """Whether database and broker, which every request needs, respond. The workers are for administrators."""

    omitted_if_null = frozenset({"error", "workers"})

    status: str
    database: str
    broker: str
    seconds_since_sweep: int | None
    """Seconds since the last sweep for due, lost and stalled jobs."""
    workers: list[WorkerResponse] | None = None
    """Their names and problems; omitted unless the request has the key of an administrator."""
    error: ErrorDetail | None = None
    """The cause, if the status is 503."""


class SharedReading(Generic[T]):
    """Computes a value for one request at a time, so that many requests without a key do not load the database.

    A request gets a value whose computation began after it arrived, by itself or by another request.
    """

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute = compute
        self._lock = threading.Lock()
        self._computed: tuple[float, T] | None = None

    def get(self) -> T:
        arrived_at = time.monotonic()
        with self._lock:
            if self._computed is not None and self._computed[0] >= arrived_at:
                return self._computed[1]
            began_at = time.monotonic()
            computed = self._compute()
            self._computed = began_at, computed
            return computed


@blueprint.get("/healthz")
@blueprint.output(AliveResponse)
def alive() -> Response:
    """Return 200 while the process responds."""
    return json_response(AliveResponse(status="alive"))


@blueprint.get("/readyz")
@blueprint.output(ReadyResponse)
def ready() -> Response:
    """Return whether database and broker are reachable (503 if not), and to administrators the state of the workers."""
    (database_state, sweep_age, workers), broker_state = _readiness.get()
    is_ready = UNREACHABLE not in (database_state, broker_state)
    message = f"The database: {database_state}; the broker (Redis): {broker_state}. Start what does not respond."
    return json_response(
        ReadyResponse(
            status="ready" if is_ready else "not ready",
            database=database_state,
            broker=broker_state,
            seconds_since_sweep=sweep_age,
            workers=workers if sent_by_admin() else None,
            error=None if is_ready else ErrorDetail(id=g.request_id, code=Code.INVALID_REQUEST, message=message),
        ),
        200 if is_ready else 503,
    )


def _read_database() -> tuple[str, int | None, list[WorkerResponse]]:
    try:
        with database().reading() as session:
            return (
                "reachable",
                sweep_age_seconds(session),
                [
                    WorkerResponse(
                        name=worker.name,
                        queues=[queue for queue in worker.queues.split(",") if queue],
                        ready=worker.problem is None,
                        problem=worker.problem,
                    )
                    for worker in live_workers(session)
                ],
            )
    except SQLAlchemyError:
        return UNREACHABLE, None, []


def _ask_broker() -> str:
    try:
        dispatch.ping_broker()
    except (OperationalError, OSError):
        return UNREACHABLE
    return "reachable"


_readiness = SharedReading(lambda: (_read_database(), _ask_broker()))


@blueprint.get("/metrics")
@blueprint.doc(responses={"200": {"description": "Prometheus' text format.", "content": {"text/plain": {}}}})  # type: ignore[arg-type]
def get_metrics() -> Response:
    """Return the metrics in Prometheus' text format."""
    return Response(_metrics_text.get(), content_type=CONTENT_TYPE)


def _read_metrics() -> bytes:
    with database().reading() as session:
        samples = list(metrics(session))
    return generate_latest(_SampleCollector(samples))


_metrics_text = SharedReading(_read_metrics)


class _SampleCollector(Collector):
    """Gives samples to prometheus-client."""

    def __init__(self, samples: Iterable[Metric]) -> None:
        self._samples = samples

    @override
    def collect(self) -> Iterable[PrometheusMetric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in self._samples:
            if sample.name not in families:
                family = CounterMetricFamily if sample.name.endswith(TOTAL) else GaugeMetricFamily
                name = f"longshore_{sample.name.removesuffix(TOTAL)}"
                families[sample.name] = family(name, HELP[sample.name], labels=list(sample.labels))
            families[sample.name].add_metric(list(sample.labels.values()), sample.value)
        yield from families.values()
        build = GaugeMetricFamily("longshore_build_info", "The version of this process.", labels=["version"])
        build.add_metric([version("longshore")], 1)
        yield build
