"""`POST /v1/nodes/refresh`, and its job, which has no algorithm."""

import pytest

from shared.db.engine import database
from shared.db.models import Algorithm, AuditEvent, Instance, InstanceState, Job, JobKind, JobState, Refresh, StepState
from shared.refreshes import RefreshStep, write_steps
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import HASH, end_badly, fresh, make_claim, make_registry, one_row
from tests.service.api.invocation import Api
from tests.service.api.serving import pending_instance, pushed_version, ready

REFRESH = "/v1/nodes/refresh"


def enqueued(admin: Api, body: object = None) -> str:
    response = admin.call("POST", REFRESH, body)
    assert response.status_code == 202
    assert response.headers["Location"] == f"/v1/jobs/{response.headers['X-Job-Id']}"
    return str(response.get_json()["job_id"])


def test_a_refresh_is_a_job_about_no_algorithm(admin: Api) -> None:
    job_id = enqueued(admin, {"nodes": ["node-1", "node-2", "node-1"], "restart": "none"})
    shown = admin.get(f"/v1/jobs/{job_id}")
    assert shown.pop("created_at").endswith("Z")
    assert shown == {
        "id": job_id,
        "kind": "refresh",
        "state": "queued",
        "attempt": 1,
        "refresh": {"what": "nodes", "dry_run": False, "restart": "none", "steps": []},
        "children": [],
    }
    assert one_row(Refresh, job_id=job_id).options["nodes"] == ["node-1", "node-2"]
    (listed,) = admin.get("/v1/jobs?kind=refresh")["results"]
    assert listed == {key: value for key, value in admin.get(f"/v1/jobs/{job_id}").items() if key != "children"}
    entry = one_row(AuditEvent, action="nodes.refresh")
    assert (entry.target_id, entry.detail) == (job_id, {"nodes": ["node-1", "node-2", "node-1"], "restart": "none"})


def test_its_steps_are_told_and_followed(admin: Api) -> None:
    job_id = enqueued(admin)
    claim = make_claim(one_row(Job))
    with database().writing() as session:
        done = RefreshStep("node-1", StepState.DONE, "It is ready.")
        write_steps(session, job_id, [done, RefreshStep("node-2", StepState.RUNNING, "Evicts its pods.")])
    steps = admin.get(f"/v1/jobs/{job_id}")["refresh"]["steps"]
    assert [(step["name"], step["state"], step["step"]) for step in steps] == [
        ("node-1", "done", "It is ready."),
        ("node-2", "running", "Evicts its pods."),
    ]
    assert ["finished_at" in step for step in steps] == [True, False]
    end_badly(claim, message="A budget allows no eviction.")
    events = admin.call("GET", f"/v1/jobs/{job_id}/events").get_data(as_text=True)
    assert '"step": "A budget allows no eviction."' in events
    assert events.index("event: progress") < events.index("event: state")


def test_one_refresh_of_nodes_at_a_time(admin: Api) -> None:
    first = enqueued(admin)
    assert first in admin.expect_refusal(409, 2015, "POST", REFRESH, {"nodes": ["node-1"]})
    enqueued(admin, {"dry_run": True})  # it changes no node
    enqueued(admin, {"what": "runners"})
    admin.delete(f"/v1/jobs/{first}")
    assert fresh(one_row(Job, id=first)).state == JobState.CANCELLED
    enqueued(admin)


def test_two_requests_at_once_are_one_refresh(admin: Api) -> None:
    responses = run_concurrently(*([lambda: admin.call("POST", REFRESH)] * 4))
    assert sorted(response.status_code for response in responses) == [202, 409, 409, 409]


def test_an_order_sent_again_under_its_key_is_the_same_job(admin: Api) -> None:
    first = admin.call("POST", REFRESH, {}, Idempotency_Key="one")
    again = admin.call("POST", REFRESH, {}, Idempotency_Key="one")
    assert first.get_json() == again.get_json()
    assert again.status_code == 202


def test_only_administrators_know_of_it(admin: Api, acme: Api) -> None:
    acme.expect_refusal(403, 2001, "POST", REFRESH)
    job_id = enqueued(admin)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        acme.expect_refusal(404, 5004, method, f"/v1/jobs/{job_id}{path}")
    assert acme.get("/v1/jobs")["results"] == []
    assert one_row(Job).state == JobState.QUEUED


@pytest.fixture
def runner(admin: Api) -> Instance:  # noqa: ARG001 - it must run first
    """A ready instance of a version in a registry."""
    algorithm, registry = make_algorithm("acme"), make_registry()
    instance = pending_instance(algorithm, pushed_version(algorithm, registry))
    ready(instance)
    return fresh(instance)


def test_a_dry_run_of_runners_says_what_would_be_restarted_and_enqueues_nothing(admin: Api, runner: Instance) -> None:
    name = one_row(Algorithm, id=runner.algorithm_id).path
    shown = {"algorithm": name, "git_hash": HASH, "image": runner.image, "registry_id": runner.registry_id}
    other = make_registry()
    for narrowed, runners in (
        ({}, [shown]),
        ({"registry_id": runner.registry_id}, [shown]),
        ({"algorithm": name, "git_hash": HASH[:7]}, [shown]),
        ({"registry_id": other.id}, []),
    ):
        response = admin.call("POST", REFRESH, {"what": "runners", "dry_run": True, **narrowed})
        assert response.status_code == 200
        assert response.get_json() == {"what": "runners", "dry_run": True, "runners": runners}
        assert "X-Job-Id" not in response.headers
    assert fresh(runner).state == InstanceState.READY
    assert admin.get(f"/v1/jobs?kind={JobKind.REFRESH}")["results"] == []
