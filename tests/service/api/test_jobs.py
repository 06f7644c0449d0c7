"""`/v1/jobs`: list and cancel jobs."""

import pytest

from shared.db.models import Algorithm, Job, JobKind
from shared.errors import ErrorClass
from tests.rows import HASH, OTHER_HASH, build_commit, end_badly, make_claim, one_row
from tests.service.api.invocation import Api


@pytest.fixture
def hello(acme: Api) -> str:
    return acme.make_algorithm("acme")


def test_a_job_is_read_with_its_parts(acme: Api, admin: Api, hello: str) -> None:
    registry_id = admin.make_registry()
    push = {"registry_id": registry_id}
    response = acme.call("POST", f"{hello}/compile", {"commitSha": HASH, "registry_push_credentials": push})
    shown = acme.get(response.headers["Location"])
    (child,) = shown.pop("children")
    created = shown.pop("created_at")
    assert created.endswith("Z")
    assert shown == {
        "id": response.headers["X-Job-Id"],
        "kind": "compile",
        "state": "queued",
        "algorithm": "acme/Hello",
        "git_hash": HASH,
        "attempt": 1,
    }
    assert (child["kind"], child["registry_id"], child["progress"]["total_bytes"]) == ("push", registry_id, 0)


def test_a_job_that_failed_says_why(acme: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    job = one_row(Job)
    end_badly(make_claim(job), ErrorClass.TRANSIENT, "The repository did not respond.")
    waiting = acme.get(f"/v1/jobs/{job.id}")
    assert (waiting["state"], waiting["attempt"]) == ("queued", 2)
    assert waiting["error"] == {"class": "transient", "message": "The repository did not respond."}
    (listed,) = acme.get("/v1/jobs")["results"]
    assert listed["error"] == waiting["error"]


def test_jobs_are_filtered_and_paged(acme: Api, admin: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"))
    registry_id = admin.make_registry()
    acme.post(f"{hello}/versions/{HASH}/registry", {"registry_id": registry_id})
    acme.post(f"{hello}/compile", {"commitSha": OTHER_HASH})
    algorithm_id = one_row(Algorithm, owner="acme").id
    for query, kinds in {
        "": ["compile", "push", "compile"],
        "?kind=compile": ["compile", "compile"],
        "?kind=compile&state=queued": ["compile"],
        "?state=succeeded": ["compile"],
        "?algorithm=acme/Hello": ["compile", "push", "compile"],
        f"?algorithm={algorithm_id}&kind=push": ["push"],
        f"?registry={registry_id}": ["push"],
        "?registry=nowhere": [],
    }.items():
        assert [row["kind"] for row in acme.get(f"/v1/jobs{query}")["results"]] == kinds, query
    page = acme.get("/v1/jobs?limit=2&algorithm=acme/Hello")
    (last,) = acme.get(page["next_link"].removeprefix("http://localhost"))["results"]
    assert last["git_hash"] == HASH
    acme.expect_refusal(404, 1001, "GET", "/v1/jobs?algorithm=acme/Nothing")


@pytest.mark.parametrize("query", ["?kind=cook", "?state=lost"])
def test_what_no_job_can_be_is_400(acme: Api, query: str) -> None:
    acme.expect_refusal(400, 2015, "GET", f"/v1/jobs{query}")


def test_jobs_are_their_owners(acme: Api, rival: Api, admin: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    job = one_row(Job)
    assert rival.get("/v1/jobs")["results"] == []
    rival.expect_refusal(404, 1001, "GET", "/v1/jobs?algorithm=acme/Hello")
    rival.expect_refusal(404, 5004, "GET", f"/v1/jobs/{job.id}")
    rival.expect_refusal(404, 5004, "DELETE", f"/v1/jobs/{job.id}")
    assert [row["id"] for row in admin.get("/v1/jobs")["results"]] == [job.id]
    assert acme.get(f"/v1/jobs/{job.id}")["id"] == job.id


def test_a_job_is_cancelled_once(acme: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    acme.post(f"{hello}/version")
    job, publish = one_row(Job, kind=JobKind.COMPILE), one_row(Job, kind=JobKind.PUBLISH)
    acme.delete(f"/v1/jobs/{job.id}")
    assert acme.get(f"/v1/jobs/{job.id}")["state"] == "cancelled"
    failed = acme.get(f"/v1/jobs/{publish.id}")
    assert (failed["state"], "cancelled" in failed["error"]["message"]) == ("failed", True)
    acme.expect_refusal(409, 2015, "DELETE", f"/v1/jobs/{job.id}")


def test_an_unknown_job_is_404(acme: Api) -> None:
    for method in ("GET", "DELETE"):
        acme.expect_refusal(404, 5004, method, "/v1/jobs/00000000-0000-4000-8000-000000000000")


def test_jobs_of_a_deleted_algorithm_are_still_read(acme: Api, hello: str) -> None:
    acme.post(f"{hello}/compile", {"commitSha": HASH})
    acme.delete(hello)
    (row,) = acme.get("/v1/jobs")["results"]
    assert (row["state"], row["error"]["message"]) == ("failed", "The algorithm was deleted.")
