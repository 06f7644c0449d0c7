"""Re-pushes, the status of pushes, and the list of all pushes."""

import pytest

from shared.db.clock import now_ms
from shared.db.models import Algorithm, ImagePush, Job, JobState
from shared.encryption import keyring
from shared.registries.credentials import decrypt_job_credentials
from shared.registry.credentials import Credentials
from tests.rows import (
    DIGEST,
    HASH,
    OTHER_HASH,
    build_commit,
    change,
    end_badly,
    end_push,
    fresh,
    lose_lease,
    make_claim,
    one_row,
)
from tests.service.api.invocation import Api


@pytest.fixture
def hello(acme: Api) -> str:
    """The path of a version with a succeeded build."""
    path = acme.make_algorithm("acme")
    build_commit(one_row(Algorithm, owner="acme"))
    return f"{path}/versions/{HASH}"


@pytest.fixture
def registry(admin: Api) -> str:
    return admin.make_registry()


def newest_push() -> Job:
    return one_row(Job, id=one_row(ImagePush).job_id)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_push_again_is_taken_wrapped_and_bare(acme: Api, hello: str, registry: str, wrapped: bool) -> None:
    push = {"registry_id": registry, "registry_username": "pusher", "registry_password": "open sesame"}
    response = acme.call("POST", f"{hello}/registry", {"registry_push_credentials": push} if wrapped else push)
    assert (response.status_code, response.data) == (204, b"")
    assert "Content-Type" not in response.headers
    job = newest_push()
    assert response.headers["Location"] == f"/v1/jobs/{job.id}"
    opened = decrypt_job_credentials(keyring(), job)
    assert opened == Credentials("pusher", "open sesame")


def test_without_credentials_the_registrys_own_are_used(acme: Api, hello: str, registry: str) -> None:
    acme.post(f"{hello}/registry", {"registry_id": registry})
    assert newest_push().credentials is None


def test_the_status_is_what_was_observed(acme: Api, hello: str, registry: str) -> None:
    assert acme.get(f"{hello}/registry") == []
    acme.post(f"{hello}/registry", {"registry_id": registry})
    (status,) = acme.get(f"{hello}/registry")
    assert (status["status"], status["digest"], status["last_success"]) == ("queued", None, None)
    assert status["progress"] == {"done_bytes": 0, "total_bytes": 0, "layers_done": 0, "layers_total": 0}
    assert (status["started_at"], status["finished_at"]) == (None, None)
    claim = make_claim(newest_push())
    (status,) = acme.get(f"{hello}/registry")
    assert status["status"] == "in-progress"
    assert status["started_at"] is not None
    end_push(claim)
    (status,) = acme.get(f"{hello}/registry")
    assert (status["status"], status["digest"]) == ("succeeded", DIGEST)
    assert status["last_success"]["digest"] == DIGEST
    assert status["last_success"]["finished_at"] == status["finished_at"]


def test_an_image_that_is_gone_is_marked_and_can_be_asked_for(acme: Api, hello: str, registry: str) -> None:
    acme.post(f"{hello}/registry", {"registry_id": registry})
    end_push(make_claim(newest_push()))
    (status,) = acme.get(f"{hello}/registry")
    assert (status["missing"], status["last_seen_at"]) == (False, status["finished_at"])
    assert acme.get("/v1/pushes?missing=true")["results"] == []
    change(one_row(ImagePush, registry_id=registry), missing_at=now_ms())
    (status,) = acme.get(f"{hello}/registry")
    assert (status["status"], status["missing"]) == ("succeeded", True)
    assert f"last seen there {status['last_seen_at']}. Push the version there again." in status["status_message"]
    (listed,) = acme.get("/v1/pushes?missing=true")["results"]
    assert listed["missing"]
    assert acme.get("/v1/pushes?missing=false")["results"] == []
    assert "longshore_pushes_missing 1.0" in acme.app.test_client().get("/metrics").get_data(as_text=True)


def test_two_registries_are_two_rows_and_a_push_again_overwrites_one(
    acme: Api, admin: Api, hello: str, registry: str
) -> None:
    second = admin.make_registry("second.example.com")
    for registry_id in (registry, second):
        acme.post(f"{hello}/registry", {"registry_id": registry_id})
        end_push(make_claim(one_row(Job, id=one_row(ImagePush, registry_id=registry_id).job_id)))
    acme.post(f"{hello}/registry", {"registry_id": second})
    job = one_row(Job, id=one_row(ImagePush, registry_id=second).job_id)
    end_badly(make_claim(job), message="The password is wrong.")
    one, two = acme.get(f"{hello}/registry")
    assert (one["status"], two["status"], two["status_message"]) == ("succeeded", "failed", "The password is wrong.")
    assert (two["digest"], two["last_success"]["digest"]) == (None, DIGEST)


def test_a_version_without_a_good_build_cannot_be_pushed(acme: Api, hello: str, registry: str) -> None:
    path = hello.replace(HASH, OTHER_HASH)
    acme.expect_refusal(404, 5004, "POST", f"{path}/registry", {"registry_id": registry})
    acme.post("/v1/algorithms/acme/Hello/compile", {"commitSha": OTHER_HASH})
    assert "compile" in acme.expect_refusal(400, 2015, "POST", f"{path}/registry", {"registry_id": registry})


def test_an_unknown_registry_is_404(acme: Api, hello: str) -> None:
    acme.expect_refusal(404, 5004, "POST", f"{hello}/registry", {"registry_id": "00000000-0000-4000-8000-000000000000"})
    acme.expect_refusal(404, 5004, "DELETE", f"{hello}/registry/00000000-0000-4000-8000-000000000000")


def test_a_push_is_cancelled_once(acme: Api, hello: str, registry: str) -> None:
    acme.post(f"{hello}/registry", {"registry_id": registry})
    acme.delete(f"{hello}/registry/{registry}")
    (status,) = acme.get(f"{hello}/registry")
    assert (status["status"], fresh(newest_push()).state) == ("cancelled", JobState.CANCELLED)
    acme.expect_refusal(409, 2015, "DELETE", f"{hello}/registry/{registry}")


def test_dashboards_read_every_push_they_may(acme: Api, rival: Api, admin: Api, hello: str, registry: str) -> None:
    acme.post(f"{hello}/registry", {"registry_id": registry})
    rivals = rival.make_algorithm("rival")
    build_commit(one_row(Algorithm, owner="rival"), OTHER_HASH)
    rival.post(f"{rivals}/versions/{OTHER_HASH}/registry", {"registry_id": registry})
    both = admin.get(f"/v1/pushes?status=queued&registry={registry}")["results"]
    assert [(row["algorithm"], row["git_hash"]) for row in both] == [("rival/Hello", OTHER_HASH), ("acme/Hello", HASH)]
    assert [row["algorithm"] for row in acme.get("/v1/pushes")["results"]] == ["acme/Hello"]
    assert admin.get("/v1/pushes?status=failed")["results"] == []
    assert admin.get("/v1/pushes?registry=nowhere")["results"] == []
    page = admin.get("/v1/pushes?limit=1")
    assert [row["algorithm"] for row in page["results"]] == ["rival/Hello"]
    rest = admin.get(f"/v1/pushes?limit=1&marker={page['marker']}")
    assert [row["algorithm"] for row in rest["results"]] == ["acme/Hello"]
    acme.expect_refusal(400, 2015, "GET", "/v1/pushes?status=unheard-of")


def test_a_push_that_is_asked_for_again_ends_the_older_one(acme: Api, hello: str, registry: str) -> None:
    acme.post(f"{hello}/registry", {"registry_id": registry})
    older = newest_push()
    make_claim(older)
    acme.post(f"{hello}/registry", {"registry_id": registry})
    newer = newest_push()
    shown = acme.get(f"/v1/jobs/{older.id}")
    assert (shown["state"], shown["superseded_by"]) == ("superseded", newer.id)
    assert "progress" not in shown
    lose_lease(older)
    end_push(make_claim(newer))
    assert acme.get(f"/v1/jobs/{newer.id}")["progress"]["done_bytes"] == 0
