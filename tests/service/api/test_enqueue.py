"""Requests that enqueue: waiting for the job, and repeated requests."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text
from werkzeug.test import TestResponse

from api.owner_slots import wait_slots
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, IdempotencyKey, ImagePush, Job, JobKind
from tests.concurrency import TIMEOUT_SECONDS, run_concurrently
from tests.rows import HASH, OTHER_HASH, Row, build_commit, change, end_build, end_push, make_claim, one_row
from tests.service.api.invocation import Api


@pytest.fixture
def hello(acme: Api) -> str:
    return acme.make_algorithm("acme")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def count(model: type) -> int:
    with database().reading() as session:
        return session.scalars(select(func.count()).select_from(model)).one()


def until_there_is(model: type[Row], **values: object) -> Row:
    pause = threading.Event()
    for _ in range(TIMEOUT_SECONDS * 50):
        with database().reading() as session:
            row = session.scalar(select(model).filter_by(**values))
        if row is not None:
            return row
        pause.wait(0.02)
    pytest.fail("it never came")


def test_a_caller_that_prefers_to_wait_is_answered_when_the_job_and_its_parts_have_ended(
    acme: Api, admin: Api, hello: str, pool: ThreadPoolExecutor
) -> None:
    push = {"registry_id": admin.make_registry()}
    body = {"commitSha": HASH, "registry_push_credentials": push}
    waiting = pool.submit(acme.call, "POST", f"{hello}/compile", body, Prefer="wait=60")
    end_build(make_claim(until_there_is(Job, kind=JobKind.COMPILE)))
    assert not waiting.done()
    end_push(make_claim(one_row(Job, kind=JobKind.PUSH)))
    response = waiting.result(TIMEOUT_SECONDS)
    assert response.get_json()["build"]["status"] == "succeeded"
    assert response.get_json()["build"]["registry_status"]["status"] == "succeeded"
    assert response.headers["Preference-Applied"] == "wait=60"


def test_nobody_waits_longer_than_he_said(acme: Api, hello: str) -> None:
    response = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Prefer="respond-async, wait=0")
    assert response.get_json()["build"]["status"] == "in-progress"
    assert response.headers["Preference-Applied"] == "wait=0"


def test_nobody_waits_longer_than_the_settings_say(acme: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"))
    response = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Prefer="wait=999999")
    assert response.headers["Preference-Applied"] == "wait=60"


@pytest.mark.parametrize("preference", ["", "wait", "wait=", "wait=soon", "wait=-1", "await=5"])
def test_a_preference_that_is_none_is_passed_over(acme: Api, hello: str, preference: str) -> None:
    response = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Prefer=preference)
    assert response.status_code == 200
    assert "Preference-Applied" not in response.headers


@pytest.mark.usefixtures("acme", "hello", "pool")
def test_those_who_wait_leave_threads_for_those_who_do_not(acme: Api, hello: str) -> None:
    wait_slots.cache_clear()
    slots = wait_slots()
    taken_slots = 0
    while slots.acquire("acme"):
        taken_slots += 1
    try:
        response = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Prefer="wait=60")
        assert "Preference-Applied" not in response.headers
        assert taken_slots == 4  # of sixteen threads
        assert slots.acquire("rival"), "another owner can still wait"
    finally:
        wait_slots.cache_clear()


def test_a_request_sent_again_under_its_key_gives_the_same_job(acme: Api, hello: str) -> None:
    first = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key="one")
    again = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key="one")
    assert first.headers["X-Job-Id"] == again.headers["X-Job-Id"]
    assert first.get_json() == again.get_json()
    assert count(Job) == 1
    other = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key="two")
    assert other.headers["X-Job-Id"] != first.headers["X-Job-Id"]


def test_a_publish_sent_again_under_its_key_is_no_1007(acme: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"))
    first = acme.call("POST", f"{hello}/version", {}, Idempotency_Key="one")
    again = acme.call("POST", f"{hello}/version", {}, Idempotency_Key="one")
    assert first.get_json() == again.get_json()


def test_a_push_sent_again_under_its_key_supersedes_nothing(acme: Api, admin: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"))
    body = {"registry_id": admin.make_registry()}
    for _ in range(2):
        acme.call("POST", f"{hello}/versions/{HASH}/registry", body, Idempotency_Key="one")
    assert one_row(ImagePush).generation == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/compile", {"commitSha": OTHER_HASH}),
        ("/compile?force=true", {"commitSha": HASH}),
        ("/version", {"commitSha": HASH}),
    ],
)
def test_the_same_key_with_another_request_is_409(acme: Api, hello: str, path: str, body: dict[str, str]) -> None:
    acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key="one")
    acme.expect_refusal(409, 2015, "POST", f"{hello}{path}", body, Idempotency_Key="one")
    assert count(Job) == 1


def test_the_key_of_another_caller_is_another_key(acme: Api, admin: Api, hello: str) -> None:
    for api in (acme, admin):
        api.call("POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key="one")
    assert count(Job) == 2


def test_a_refused_request_leaves_its_key_free(acme: Api, hello: str) -> None:
    acme.expect_refusal(400, 2015, "POST", f"{hello}/version", {}, Idempotency_Key="one")
    build_commit(one_row(Algorithm, owner="acme"))
    assert acme.call("POST", f"{hello}/version", {}, Idempotency_Key="one").status_code == 200


def test_a_key_is_free_again_after_a_day(acme: Api, hello: str) -> None:
    first = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key="one")
    change(one_row(IdempotencyKey), created_at=now_ms() - 24 * 3600 * 1000 - 1)
    again = acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key="one")
    assert again.headers["X-Job-Id"] != first.headers["X-Job-Id"]
    assert one_row(IdempotencyKey).job_id == again.headers["X-Job-Id"]


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_cannot_be_one_is_400(acme: Api, hello: str, key: str) -> None:
    acme.expect_refusal(400, 2015, "POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key=key)


def test_what_a_key_is_kept_with_shows_no_password(acme: Api, admin: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"))
    body = {"registry_id": admin.make_registry(), "registry_username": "u", "registry_password": "open sesame"}
    acme.call("POST", f"{hello}/versions/{HASH}/registry", body, Idempotency_Key="one")
    assert "sesame" not in one_row(IdempotencyKey).request
    assert one_row(IdempotencyKey).key != "one"


def test_the_same_request_twice_at_once_makes_one_job(acme: Api, hello: str) -> None:
    def compile_it() -> TestResponse:
        return acme.call("POST", f"{hello}/compile", {"commitSha": HASH}, Idempotency_Key="one")

    responses = run_concurrently(*([compile_it] * 4))
    assert {response.status_code for response in responses} == {200}
    assert len({response.headers["X-Job-Id"] for response in responses}) == 1
    assert count(Job) == 1


@pytest.mark.parametrize("installation", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_the_same_publish_twice_at_once_is_no_1007(acme: Api, hello: str, pool: ThreadPoolExecutor) -> None:
    algorithm = one_row(Algorithm, owner="acme")
    build_commit(algorithm)
    with database().writing() as session:  # both find no job for their key before one of them continues
        session.execute(select(Algorithm.id).where(Algorithm.id == algorithm.id).with_for_update())
        sent = [pool.submit(acme.call, "POST", f"{hello}/version", {}, Idempotency_Key="one") for _ in range(2)]
        until_so_many_wait_for_locks(2)
    responses = [response.result(TIMEOUT_SECONDS) for response in sent]
    assert [response.status_code for response in responses] == [200, 200]
    assert len({response.headers["X-Job-Id"] for response in responses}) == 1


def until_so_many_wait_for_locks(number: int) -> None:
    pause = threading.Event()
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    for _ in range(TIMEOUT_SECONDS * 50):
        with database().reading() as session:
            if session.scalar(waiting) == number:
                return
        pause.wait(0.02)
    pytest.fail("they never wait")


def test_publishes_at_once_are_one_publish(acme: Api, hello: str) -> None:
    build_commit(one_row(Algorithm, owner="acme"))
    responses = run_concurrently(*([lambda: acme.call("POST", f"{hello}/version")] * 3))
    assert sorted(response.status_code for response in responses) == [200, 400, 400]
    assert acme.get(hello)["version_info"]["semantic_version"] == "0.1.0"
