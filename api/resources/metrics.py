"""`/metrics`: what an operator measures, in Prometheus' format, read from the database at every scrape.

So any number of API processes say the same, and nothing is lost with one of them. It names no algorithm and no owner.
"""

from collections.abc import Iterable
from importlib.metadata import version

from apiflask import APIBlueprint
from flask import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as PrometheusMetric
from prometheus_client.registry import Collector

from shared.db.engine import database
from shared.metrics import Metric, metrics

blueprint = APIBlueprint("metrics", __name__, tag="Health")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TOTAL = "_total"
HELP = {
    "jobs": "Jobs that have not ended.",
    "jobs_waiting": "Jobs that only a worker is missing for.",
    "jobs_waiting_oldest_seconds": "How long the oldest of these has waited.",
    "pushes": "The latest push of every version and registry, by status.",
    "push_results_total": "Pushes that ended, by how.",
    "push_retries_total": "Failed tries of pushes that were tried again.",
    "pushes_stalled_total": "Pushes that were reported as stalled: unclaimed, lost or still.",
    "pushes_missing": "Pushes whose last good image is gone from its registry.",
    "workers": "Live workers, and whether they can work.",
    "registry_paused": "1 where no pushes go to a registry, because it fails for everybody or somebody paused it.",
    "registry_failures_in_a_row": "Failures of a registry that concern everybody, since the last success.",
    "webhook_deliveries": "Events for webhooks, by how far their sending is.",
    "sweep_age_seconds": "Age of the last sweep for due, lost and stalled jobs.",
}


@blueprint.get("/metrics")
@blueprint.doc(responses={"200": {"description": "Prometheus' text format.", "content": {"text/plain": {}}}})  # type: ignore[arg-type]
def show_metrics() -> Response:
    """What is measured, in Prometheus' text format."""
    with database().reading() as session:
        measured = list(metrics(session))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_DatabaseCollector(measured))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE)


class _DatabaseCollector(Collector):
    """Hands on what was measured."""

    def __init__(self, measured: Iterable[Metric]) -> None:
        self._measured = measured

    def collect(self) -> Iterable[PrometheusMetric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for each in self._measured:
            if each.name not in families:
                family = CounterMetricFamily if each.name.endswith(TOTAL) else GaugeMetricFamily
                name = f"longshore_{each.name.removesuffix(TOTAL)}"
                families[each.name] = family(name, HELP[each.name], labels=list(each.labels))
            families[each.name].add_metric(list(each.labels.values()), each.value)
        yield from families.values()
        build = GaugeMetricFamily("longshore_build_info", "The version that runs.", labels=["version"])
        build.add_metric([version("longshore")], 1)
        yield build
