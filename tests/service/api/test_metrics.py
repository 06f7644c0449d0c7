"""`/metrics` in Prometheus' format."""

from prometheus_client.parser import text_string_to_metric_families

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import ImagePush, PauseCause
from shared.jobs.stalls import report_unclaimed
from shared.jobs.worker_processes import SWEEP, record_run, refresh_worker
from tests.git_service import make_algorithm
from tests.rows import (
    build_commit,
    change,
    compile_commit,
    end_badly,
    end_push,
    make_claim,
    make_registry,
    one_row,
    push,
)
from tests.service.api.invocation import Api


def scraped(admin: Api) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = admin.app.test_client().get("/metrics")
    assert response.status_code == 200
    assert response.mimetype == "text/plain"
    families = text_string_to_metric_families(response.get_data(as_text=True))
    return {
        (sample.name.removeprefix("longshore_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_is_measured(admin: Api) -> None:
    registry = make_registry(paused_at=now_ms(), paused_by=PauseCause.UNREACHABLE, pause_reason="Away.", failures=4)
    algorithm = make_algorithm("secretive")
    end_push(make_claim(push(build_commit(algorithm), make_registry())))
    end_badly(make_claim(push(build_commit(algorithm, "a" * 40), make_registry())))
    stalled = push(build_commit(algorithm, "b" * 40), make_registry())
    change(stalled, created_at=now_ms() - 3_600_000)
    compile_commit(algorithm, "c" * 40)
    with database().writing() as session:
        report_unclaimed(session, after_seconds=60)
        refresh_worker(session, "worker-1", ("pushes",), "No engine.")
        record_run(session, SWEEP)
    assert one_row(ImagePush, id=stalled.push_id).state == "stalled"
    found = scraped(admin)
    assert found["pushes", (("status", "succeeded"),)] == 1
    assert found["push_results_total", (("status", "failed"),)] == 1
    assert found["pushes_stalled_total", (("kind", "unclaimed"),)] == 1
    assert found["pushes_stalled_total", (("kind", "lost"),)] == 0
    assert found["jobs", (("kind", "compile"), ("state", "queued"))] == 1
    assert found["jobs_waiting", (("queue", "pushes"),)] == 1
    assert found["jobs_waiting_oldest_seconds", (("queue", "pushes"),)] > 3000
    assert found["workers", (("queue", "pushes"), ("ready", "no"))] == 1
    assert found["registry_paused", (("cause", "unreachable"), ("registry_id", registry.id))] == 1
    assert found["registry_paused", (("cause", "operator"), ("registry_id", registry.id))] == 0
    assert found["workers", (("queue", "builds"), ("ready", "yes"))] == 0
    assert found["registry_failures_in_a_row", (("registry_id", registry.id),)] == 4
    assert found["sweep_age_seconds", ()] < 60


def test_an_empty_installation_has_numbers_and_no_names(admin: Api) -> None:
    make_algorithm("secretive", "Hidden")
    text = admin.app.test_client().get("/metrics").get_data(as_text=True)
    assert "longshore_build_info" in text
    assert "secretive" not in text.lower()
