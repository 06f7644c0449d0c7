"""`POST /v1/pushes/retry`."""

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from api.resources import bulk_pushes
from shared.commands import repush
from shared.db.models import Algorithm, IdempotencyKey, ImagePush, Job, PushState, Registry
from shared.registry.credentials import Credentials
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import build_commit, end_badly, make_claim, make_registry, one_row, push
from tests.service.api.invocation import Api

RETRY = "/v1/pushes/retry"
OWN = Credentials("pusher", "open sesame")
GIVEN = {"registry_username": "pusher", "registry_password": "another secret"}


def failed_push(registry: Registry, credentials: Credentials | None = None) -> Job:
    job = push(build_commit(make_algorithm()), registry, credentials)
    end_badly(make_claim(job))
    return job


def test_everything_that_failed_is_enqueued_and_the_call_names_its_job(admin: Api) -> None:
    registry = make_registry()
    jobs = [failed_push(registry) for _ in range(3)]
    response = admin.call("POST", RETRY, {})
    assert response.get_json() == {"enqueued": 3, "skipped": [], "more": False}
    job = admin.get(response.headers["Location"])
    assert [part["kind"] for part in (job, *job["children"])] == ["push"] * 3
    assert {one_row(ImagePush, id=job.push_id).state for job in jobs} == {PushState.QUEUED}


def test_what_is_skipped_says_why(admin: Api) -> None:
    job = failed_push(make_registry(), OWN)
    response = admin.call("POST", RETRY)
    (skipped,) = response.get_json()["skipped"]
    assert (skipped["registry_id"], skipped["git_hash"]) == (job.registry_id, job.git_hash)
    assert "Send credentials" in skipped["reason"]
    assert "Location" not in response.headers


def test_credentials_go_to_the_registry_that_is_named_and_nowhere_else(admin: Api) -> None:
    registry = make_registry()
    failed_push(registry, OWN)
    admin.expect_refusal(400, 2015, "POST", RETRY, GIVEN)
    response = admin.call("POST", RETRY, {"registry_id": registry.id, **GIVEN})
    assert response.get_json()["enqueued"] == 1
    assert one_row(Job, id=response.headers["X-Job-Id"]).credentials is not None
    assert b"another secret" not in response.data


def test_the_same_key_enqueues_nothing_twice(admin: Api) -> None:
    registry = make_registry()
    for _ in range(2):
        failed_push(registry)
    first = admin.call("POST", RETRY, {}, Idempotency_Key="again")
    second = admin.call("POST", RETRY, {}, Idempotency_Key="again")
    assert first.get_json()["enqueued"] == second.get_json()["enqueued"] == 2
    assert first.headers["X-Job-Id"] == second.headers["X-Job-Id"]
    admin.expect_refusal(409, 2015, "POST", RETRY, {"status": "cancelled"}, Idempotency_Key="again")


@pytest.mark.parametrize("write", ["audit", "record_idempotency_key"])
def test_what_cannot_be_recorded_is_not_enqueued(admin: Api, monkeypatch: pytest.MonkeyPatch, write: str) -> None:
    job = failed_push(make_registry())

    def fail(*_arguments: object, **_options: object) -> None:
        raise OperationalError("INSERT", {}, Exception("disk is full"))

    monkeypatch.setattr(bulk_pushes, write, fail)
    assert admin.call("POST", RETRY, {}, Idempotency_Key="once").status_code == 503
    push_row = one_row(ImagePush, id=job.push_id)
    assert (push_row.job_id, push_row.state) == (job.id, PushState.FAILED)
    monkeypatch.undo()
    assert admin.call("POST", RETRY, {}, Idempotency_Key="once").get_json()["enqueued"] == 1


def test_each_transaction_of_a_long_retry_is_audited_and_the_first_one_keeps_the_key(
    admin: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repush, "MAX_IN_TRANSACTION", 2)
    registry = make_registry()
    for _ in range(3):
        failed_push(registry)
    response = admin.call("POST", RETRY, {}, Idempotency_Key="once")
    assert response.get_json()["enqueued"] == 3
    events = admin.get("/v1/audit?action=pushes.retry")["results"]
    assert [event["detail"]["number"] for event in events] == [1, 2]
    assert events[1]["target_id"] == one_row(IdempotencyKey).job_id == response.headers["X-Job-Id"]


def test_the_same_retry_sent_twice_at_the_same_time_enqueues_once(admin: Api) -> None:
    registry = make_registry()
    for _ in range(3):
        failed_push(registry)
    responses = run_concurrently(*([lambda: admin.call("POST", RETRY, {}, Idempotency_Key="once")] * 3))
    assert [response.status_code for response in responses] == [200] * 3
    assert {response.get_json()["enqueued"] for response in responses} == {3}
    assert len({response.headers["X-Job-Id"] for response in responses}) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"status": "succeeded"}, 400),
        ({"status": 7}, 400),
        ({"registry_id": "unknown"}, 404),
        ({"algorithm": "nobody/Nothing"}, 404),
        ({"registry_username": "half"}, 400),
    ],
)
def test_what_cannot_be_meant_is_refused(admin: Api, body: dict[str, Any], status: int) -> None:
    assert admin.call("POST", RETRY, body).status_code == status


def test_only_administrators_retry_everything(acme: Api) -> None:
    acme.expect_refusal(403, 2001, "POST", RETRY, {})


def test_a_retry_is_not_what_a_build_asked_for(admin: Api, acme: Api) -> None:
    path = acme.make_algorithm("acme")
    algorithm = one_row(Algorithm, owner="acme", name="Hello")
    registry = make_registry()
    build = build_commit(algorithm)
    end_badly(make_claim(push(build, registry)))
    failed_push(registry)
    admin.post(RETRY, {})
    version = acme.get(f"{path}/versions/{build.commit_sha}")
    assert "registry_status" not in version["build"]
