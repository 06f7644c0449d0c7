"""`POST /v1/registries/ID/adopt`, and dry runs of requests for many pushes."""

import uuid

import pytest

from shared.commands import adopt
from shared.db.clock import now_ms
from shared.db.models import Algorithm, AuditEvent, Build, ImagePush, Job, PushState, Registry, Version
from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import (
    build_commit,
    change,
    compile_commit,
    end_badly,
    end_build,
    end_push,
    fresh,
    make_claim,
    make_registry,
    one_row,
    publish,
    push,
)
from tests.service.api.invocation import Api

DRY = "?dry_run=true"


def published_version(algorithm: Algorithm) -> Version:
    git_hash = f"{uuid.uuid4().hex}01234567"
    build_commit(algorithm, git_hash)
    publish(algorithm)
    return one_row(Version, git_hash=git_hash)


@pytest.fixture
def registry() -> Registry:
    return make_registry("registry.example.com/prod")


@pytest.fixture
def path(admin: Api, registry: Registry) -> str:  # noqa: ARG001 - the installation comes first
    return f"/v1/registries/{registry.id}/adopt"


def pushes_of(version: Version) -> ImagePush:
    return one_row(ImagePush, version_id=version.id)


def test_what_is_published_is_pushed_once_and_what_is_not_is_left_alone(
    admin: Api, registry: Registry, path: str
) -> None:
    versions = [published_version(make_algorithm()) for _ in range(2)]
    build_commit(make_algorithm())
    deleted = make_algorithm()
    published_version(deleted)
    change(deleted, deleted_at=1)
    assert admin.post(path + DRY) == {"enqueued": 2, "skipped": [], "more": False}
    response = admin.call("POST", path, {})
    assert response.get_json() == {"enqueued": 2, "skipped": [], "more": False}
    job = admin.get(response.headers["Location"])
    assert [part["kind"] for part in (job, *job["children"])] == ["push", "push"]
    pushed = [one_row(Job, id=pushes_of(version).job_id) for version in versions]
    assert [(job.registry_id, job.semantic_version) for job in pushed] == [(registry.id, "0.0.1")] * 2
    again = admin.post(path)
    assert (again["enqueued"], again["more"]) == (0, False)
    assert [each["reason"] for each in again["skipped"]] == ["A push there has not ended (queued)."] * 2
    for job in pushed:
        end_push(make_claim(job))
    again = admin.call("POST", path)
    assert [each["reason"].partition(" (")[0] for each in again.get_json()["skipped"]] == ["It is there already"] * 2
    assert "Location" not in again.headers
    said = one_row(AuditEvent, action="registry.adopt")
    assert (said.target_id, said.detail["number"]) == (registry.id, 2)


def test_what_failed_is_missing_has_another_address_or_no_number_there_is_pushed(
    admin: Api, registry: Registry, path: str
) -> None:
    failed, missing, moved, unnumbered, good = (make_algorithm() for _ in range(5))
    for algorithm in (failed, missing, moved, good):
        end_push(make_claim(push(build_commit_of(published_version(algorithm)), registry)))
    end_badly(make_claim(push(build_commit_of(one_row(Version, algorithm_id=failed.id)), registry)))
    change(pushes_of(one_row(Version, algorithm_id=missing.id)), missing_at=now_ms())
    change(pushes_of(one_row(Version, algorithm_id=moved.id)), registry_url="elsewhere.example.com")
    compiled = compile_commit(unnumbered, "a" * 40, registry)
    end_build(make_claim(compiled.job))
    end_push(make_claim(one_row(Job, parent_id=compiled.job.id)))
    publish(unnumbered)
    adopted = admin.post(path)
    assert adopted["enqueued"] == 4
    assert [each["algorithm"] for each in adopted["skipped"]] == [good.path]


def build_commit_of(version: Version) -> Build:
    return one_row(Build, id=version.build_id)


def test_an_owner_or_an_algorithm_selects(admin: Api, path: str) -> None:
    one, other, third = make_algorithm("acme"), make_algorithm("acme", "Other"), make_algorithm("rival")
    for algorithm in (one, other, third):
        published_version(algorithm)
    assert admin.post(path + DRY)["enqueued"] == 3
    assert admin.post(path + DRY, {"owner": "acme"})["enqueued"] == 2
    assert admin.post(path + DRY, {"algorithm": one.id})["enqueued"] == 1
    assert admin.post(path, {"algorithm": "acme/Other", "owner": "acme"})["enqueued"] == 1
    assert admin.post(path, {"owner": "acme"})["enqueued"] == 1
    admin.expect_refusal(404, 3000, "POST", path, {"owner": "nobody"})
    admin.expect_refusal(404, 1001, "POST", path, {"algorithm": "acme/None"})
    admin.expect_refusal(404, 5004, "POST", "/v1/registries/none/adopt")


def test_only_administrators_adopt(acme: Api, path: str) -> None:
    acme.expect_refusal(403, 2001, "POST", path)
    acme.expect_refusal(403, 2001, "POST", path + DRY)


def test_a_dry_run_changes_nothing(admin: Api, registry: Registry, path: str) -> None:
    version = published_version(make_algorithm())
    job = push(build_commit_of(version), registry)
    end_badly(make_claim(job))
    before = pushes_of(version)
    for call in (path, "/v1/pushes/retry"):
        response = admin.call("POST", call + DRY, Idempotency_Key="dry")
        assert response.get_json() == {"enqueued": 1, "skipped": [], "more": False}
        assert "X-Job-Id" not in response.headers
        admin.expect_refusal(400, 2015, "POST", call + DRY, Idempotency_Key="")
    after = pushes_of(version)
    assert (after.job_id, after.generation, after.state) == (job.id, before.generation, PushState.FAILED)
    assert admin.call("POST", path, Idempotency_Key="dry").get_json()["enqueued"] == 1


def test_the_same_key_adopts_nothing_twice(admin: Api, path: str) -> None:
    for _ in range(2):
        published_version(make_algorithm())
    first, second = (admin.call("POST", path, {}, Idempotency_Key="once") for _ in range(2))
    assert first.get_json()["enqueued"] == second.get_json()["enqueued"] == 2
    assert first.headers["X-Job-Id"] == second.headers["X-Job-Id"]


def test_more_is_said_until_everything_is_enqueued(admin: Api, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "MAX_AT_ONCE", 2)
    monkeypatch.setattr(adopt, "MAX_IN_TRANSACTION", 1)
    for _ in range(4):
        published_version(make_algorithm())
    answers = [admin.post(path) for _ in range(3)]
    assert [(answer["enqueued"], answer["more"]) for answer in answers] == [(2, True), (2, False), (0, False)]


@pytest.mark.parametrize("dry", [DRY, ""])
def test_the_limit_of_an_owners_jobs_holds_and_others_are_not_kept_waiting(
    admin: Api, path: str, monkeypatch: pytest.MonkeyPatch, dry: str
) -> None:
    crowded, other = make_algorithm(), make_algorithm()
    for algorithm in (crowded, crowded, crowded, other):
        published_version(algorithm)
    monkeypatch.setenv("LONGSHORE_MAX_QUEUED_JOBS_PER_OWNER", "2")
    settings.cache_clear()
    adopted = admin.post(path + dry)
    assert (adopted["enqueued"], adopted["more"]) == (3, False)
    (skipped,) = adopted["skipped"]
    assert skipped["algorithm"] == crowded.path
    assert "LONGSHORE_MAX_QUEUED_JOBS_PER_OWNER" in skipped["reason"]


def test_executions_pull_from_the_registry_when_it_has_adopted_a_version(
    admin: Api, registry: Registry, path: str
) -> None:
    algorithm = make_algorithm()
    version = published_version(algorithm)
    end_push(make_claim(push(build_commit_of(version), make_registry("old.example.com"))))
    admin.post(path)
    end_push(make_claim(one_row(Job, id=one_row(ImagePush, registry_id=registry.id).job_id)))
    pulled = admin.get(f"/v1/algorithms/{algorithm.path}/versions/{version.git_hash}/pull")
    assert pulled["registry_id"] == registry.id
    assert fresh(version).pinned_registry_id is None
