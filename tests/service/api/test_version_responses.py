"""Responses of compiles and publishes have the build of the request; a repeated request has the same response."""

import pytest
from sqlalchemy import update

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, BuildStatus, Job, JobState
from tests.service.api.invocation import Api

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def build_well(build_id: str) -> None:
    """Let the build succeed, as a worker does."""
    with database().writing() as session:
        session.execute(update(Build).where(Build.id == build_id).values(status=BuildStatus.SUCCEEDED))
        done = {"state": JobState.SUCCEEDED, "finished_at": now_ms()}
        session.execute(update(Job).where(Job.build_id == build_id).values(done))


@pytest.fixture
def published(acme: Api) -> str:
    """The path of an algorithm whose commit is published."""
    path = acme.make_algorithm("acme")
    build = acme.post(f"{path}/compile", {"commitSha": COMMIT})["build"]
    build_well(build["build_id"])
    acme.post(f"{path}/versions", {})
    return path


def test_a_forced_compile_of_a_published_commit_answers_with_its_own_build(acme: Api, published: str) -> None:
    bound = acme.get(f"{published}/versions/{COMMIT}")["build"]
    forced = acme.post(f"{published}/compile?force=true", {"commitSha": COMMIT})["build"]
    assert forced["build_id"] != bound["build_id"]
    assert forced["status"] == "in-progress"
    assert acme.get(f"{published}/versions/{COMMIT}")["build"] == bound


def test_a_publish_answers_with_the_build_that_it_published(acme: Api) -> None:
    path = acme.make_algorithm("acme")
    build = acme.post(f"{path}/compile", {"commitSha": COMMIT})["build"]
    build_well(build["build_id"])
    shown = acme.post(f"{path}/versions", {})
    assert shown["build"]["build_id"] == build["build_id"]
    assert shown["build"]["version_info"] == {"semantic_version": "0.1.0"}


def test_pinning_a_commit_that_was_never_compiled_is_a_mistake_in_the_body(acme: Api, published: str) -> None:
    message = acme.expect_refusal(400, 2015, "POST", f"{published}/versions", {"commitSha": COMMIT[::-1]})
    assert "compile that commit first" in message


def test_a_repeat_gives_its_job_though_the_registry_is_gone(acme: Api, admin: Api) -> None:
    path, registry_id = acme.make_algorithm("acme"), admin.make_registry()
    body = {"commitSha": COMMIT, "registry_push_credentials": {"registry_id": registry_id}}
    first = acme.call("POST", f"{path}/compile", body, Idempotency_Key="once")
    admin.delete(f"/v1/registries/{registry_id}")
    again = acme.call("POST", f"{path}/compile", body, Idempotency_Key="once")
    assert again.status_code == 200
    assert again.headers["X-Job-Id"] == first.headers["X-Job-Id"]


def test_a_build_has_the_verdict_of_its_load_check_when_it_is_known(acme: Api) -> None:
    path = acme.make_algorithm("acme")
    build = acme.post(f"{path}/compile", {"commitSha": COMMIT})["build"]
    build_well(build["build_id"])
    assert "load_check" not in acme.get(f"{path}/builds/{build['build_id']}")
    for columns, shown in (
        ({"load_check": "skipped"}, {"state": "skipped"}),
        ({"load_check": "passed"}, {"state": "passed"}),
        ({"load_check": "failed", "load_check_traceback": "No!"}, {"state": "failed", "traceback": "No!"}),
    ):
        with database().writing() as session:
            session.execute(update(Build).where(Build.id == build["build_id"]).values(columns))
        assert acme.get(f"{path}/builds/{build['build_id']}")["load_check"] == shown
        assert acme.get(f"{path}/builds")["results"][0]["load_check"] == shown
        assert acme.get(f"{path}/versions/{COMMIT}")["build"]["load_check"] == shown
