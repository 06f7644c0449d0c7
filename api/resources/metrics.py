"""`/metrics` in Prometheus' format, read from the database at every scrape.

Every API process returns the same values, and none are lost with a process. They name no algorithm and no owner.
"""

from collections.abc import Iterable
from importlib.metadata import version

from apiflask import APIBlueprint
from flask import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as PrometheusMetric
from prometheus_client.registry import Collector
from typing_extensions import override

from shared.db.engine import database
from shared.metrics import Metric, metrics

blueprint = APIBlueprint("metrics", __name__, tag="Health")

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


@blueprint.get("/metrics")
@blueprint.doc(responses={"200": {"description": "Prometheus' text format.", "content": {"text/plain": {}}}})  # type: ignore[arg-type]
def get_metrics() -> Response:
    """Return the metrics in Prometheus' text format."""
    with database().reading() as session:
        samples = list(metrics(session))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SampleCollector(samples))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE)


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
