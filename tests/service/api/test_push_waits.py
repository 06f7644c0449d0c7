"""A call to a version whose image is being pushed waits for it, within its timeout and within limits."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from werkzeug.test import TestResponse

from api.invocation.async_calls import async_calls
from api.invocation.push_wait import _Watch, push_waits
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import (
    Algorithm,
    Build,
    ImagePush,
    Instance,
    InstanceState,
    Job,
    KeyKind,
    PauseCause,
    PushState,
    Registry,
    Version,
)
from shared.db.models.algorithms import PublishState
from shared.errors import ErrorClass
from shared.settings import settings
from tests.git_service import make_key
from tests.rows import (
    HASH,
    build_commit,
    change,
    compile_commit,
    end_badly,
    end_build,
    end_push,
    make_claim,
    make_registry,
    one_row,
    push,
)
from tests.service.api.invocation import Api
from tests.service.api.serving import live_instance
from tests.statements import recorded_statements

BeginCall = Callable[..., "Future[TestResponse]"]
CALL = f"/v1/algo/acme/Hello/{HASH}"
SECONDS = 60


@pytest.fixture
def build(algorithm: Algorithm) -> Build:
    return build_commit(algorithm)


@pytest.fixture
def job(build: Build) -> Job:
    """A push that waits for a worker; the version has no other."""
    return push(build, make_registry("production.example.com"))


@pytest.fixture
def caller(acme: Api) -> Iterator[BeginCall]:
    """Call in the background, and return when the call waits for a push."""
    with ThreadPoolExecutor(8) as threads:

        def begin() -> "Future[TestResponse]":
            before = waiting()
            call = threads.submit(acme.call, "POST", f"{CALL}?timeout={SECONDS}", 1)
            until(lambda: waiting() > before or call.done())
            assert not call.done(), call.result().get_data(as_text=True)
            return call

        yield begin


def waiting() -> int:
    """Return how many calls wait for a push."""
    return sum(watch.waiting for watch in list(push_waits._watches.values()))


def until(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def message_of(response: TestResponse) -> str:
    return str(response.get_json()["error"]["message"])


def fail_start() -> None:
    """Let the start fail that a call wants when its image is there, so that the call ends."""
    version = one_row(Version, git_hash=HASH)

    def is_started() -> bool:
        with database().reading() as session:
            return session.query(Job).filter(Job.kind == "serve", Job.version_id == version.id).count() > 0

    until(is_started)
    change(live_instance(version), state=InstanceState.FAILED, message="No room.", ended_at=now_ms())


@pytest.mark.parametrize("running", [False, True], ids=["queued", "running"])
def test_a_call_goes_on_when_the_push_has_succeeded(caller: BeginCall, job: Job, running: bool) -> None:
    claim = make_claim(job) if running else None
    call = caller()
    end_push(claim or make_claim(job))
    fail_start()
    response = call.result(SECONDS)
    assert (response.status_code, message_of(response)) == (503, "acme/Hello could not be started: No room.")


def test_a_call_waits_for_the_build_that_its_push_waits_for(caller: BeginCall, algorithm: Algorithm) -> None:
    enqueued = compile_commit(algorithm, HASH, make_registry())
    call = caller()
    end_build(make_claim(enqueued.job))
    end_push(make_claim(one_row(Job, kind="push")))
    fail_start()
    assert "No room." in message_of(call.result(SECONDS))


def test_a_call_ends_with_the_reason_when_the_push_fails(caller: BeginCall, job: Job) -> None:
    call = caller()
    end_badly(make_claim(job), ErrorClass.AUTH, "The password is wrong.")
    response = call.result(SECONDS)
    assert (response.status_code, "Retry-After" in response.headers) == (409, False)
    assert "The password is wrong." in message_of(response)


def test_a_call_ends_with_the_reason_when_the_push_begins_to_back_off(caller: BeginCall, job: Job) -> None:
    call = caller()
    end_badly(make_claim(job), ErrorClass.TRANSIENT, "The registry did not respond.")
    response = call.result(SECONDS)
    assert (response.status_code, response.headers["Retry-After"]) == (409, "5")
    assert "The registry did not respond. Retried in" in message_of(response)


def test_a_call_does_not_outlast_its_timeout(acme: Api, job: Job) -> None:
    make_claim(job)
    response = acme.call("POST", f"{CALL}?timeout=0.3", 1)
    assert (response.status_code, response.headers["Retry-After"]) == (409, "5")
    assert "push to production.example.com did not end in time" in message_of(response)
    assert "send it again" in message_of(response)


def back_off(job: Job) -> None:
    end_badly(make_claim(job), ErrorClass.TRANSIENT, "The registry did not respond.")


def pause(job: Job) -> None:
    change(registry_of(job), paused_at=now_ms(), paused_by=PauseCause.OPERATOR, pause_reason="It is moved.")


def throttle(job: Job) -> None:
    change(registry_of(job), throttled_until=now_ms() + 60_000)


def stall(job: Job) -> None:
    change(one_row(ImagePush, id=job.push_id), state=PushState.STALLED, message="No worker takes it.")


def registry_of(job: Job) -> Registry:
    return one_row(Registry, id=job.registry_id)


@pytest.mark.parametrize(
    ("hinder", "reason"),
    [
        (back_off, "Retried in"),
        (pause, "paused by an operator"),
        (throttle, "asked to slow down"),
        (stall, "No worker takes it."),
    ],
)
def test_a_push_that_does_not_go_on_is_told_at_once(
    acme: Api, build: Build, job: Job, hinder: Callable[[Job], None], reason: str
) -> None:
    hinder(job)
    for query in ("", "&output=void"):
        response = acme.call("POST", f"{CALL}?timeout=1{query}", 1)
        assert (response.status_code, response.headers["Retry-After"]) == (409, "5")
        assert "calls do not wait for the push to production.example.com: " in message_of(response)
        assert reason in message_of(response)
    push(build, make_registry("sandbox.example.com"))
    late = acme.call("POST", f"{CALL}?timeout=0.1", 1)
    assert "push to sandbox.example.com did not end in time" in message_of(late)


@pytest.mark.parametrize("hinder", [back_off, stall, lambda _job: None], ids=["held", "stalled", "under way"])
def test_who_may_not_read_pushes_is_not_told_of_them(
    acme: Api, rival: Api, job: Job, hinder: Callable[[Job], None]
) -> None:
    change(
        one_row(Version, git_hash=HASH),
        semantic_version="1.0.0",
        publish_state=PublishState.PUBLISHED,
        callability="public",
    )
    hinder(job)
    for api, is_told in ((acme, True), (rival, False)):
        message = message_of(api.call("POST", f"{CALL}?timeout=0.1", 1))
        assert ("production.example.com" in message) is is_told, message
        accepted = api.call("POST", f"{CALL}?timeout=0.1&output=void", 1)
        if accepted.status_code == 200:
            assert async_calls.wait_until_idle(60) == []
            outcome = api.get(f"/v1/requests/{accepted.get_json()['request_id']}")
            assert ("production.example.com" in outcome["error"]["message"]) is is_told


def test_a_push_that_runs_is_awaited_though_its_registry_was_paused_meanwhile(acme: Api, job: Job) -> None:
    make_claim(job)
    pause(job)
    assert "did not end in time" in message_of(acme.call("POST", f"{CALL}?timeout=0.1", 1))


def test_a_pinned_version_waits_for_the_push_to_its_registry_only(acme: Api, build: Build, job: Job) -> None:
    other = push(build, make_registry("pinned.example.com"))
    change(one_row(Version, git_hash=HASH), pinned_registry_id=other.registry_id)
    assert "push to pinned.example.com did not end in time" in message_of(acme.call("POST", f"{CALL}?timeout=0.1", 1))
    end_badly(make_claim(other))
    refused = acme.call("POST", f"{CALL}?timeout=1", 1)
    assert "pinned to a registry from which" in message_of(refused)
    assert job.state == "queued"


def test_a_pin_that_is_set_meanwhile_is_followed(caller: BeginCall, build: Build, job: Job) -> None:
    call = caller()
    other = push(build, make_registry("pinned.example.com"))
    change(one_row(Version, git_hash=HASH), pinned_registry_id=other.registry_id)
    end_push(make_claim(job))
    end_push(make_claim(other))
    fail_start()
    assert "No room." in message_of(call.result(SECONDS))
    assert one_row(Instance).registry_id == other.registry_id


def test_a_call_without_a_wait_waits_for_the_push_and_tells_how_it_ended(acme: Api, job: Job) -> None:
    begun = [acme.post(f"{CALL}?output=void", 1)["request_id"] for _ in range(2)]
    until(lambda: waiting() == 2)
    assert acme.get(f"/v1/requests/{begun[0]}")["state"] == "running"
    end_badly(make_claim(job), ErrorClass.AUTH, "The password is wrong.")
    assert async_calls.wait_until_idle(SECONDS) == []
    for request_id in begun:
        told = acme.get(f"/v1/requests/{request_id}")
        assert told["state"] == "failed"
        assert "The password is wrong." in told["error"]["message"]


def test_few_calls_of_one_owner_and_half_of_all_may_wait(
    admin: Api, acme: Api, caller: BeginCall, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_CALLS_THREADS", "8")
    settings.cache_clear()
    third = Api(acme.app, make_key("third", KeyKind.ADMIN))
    calls = [caller(), caller()]
    for query in ("?timeout=1", "?timeout=1&output=void"):
        refused = acme.call("POST", f"{CALL}{query}", 1)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
        assert "2 requests of acme that call algorithms whose image is still being pushed" in message_of(refused)
    with ThreadPoolExecutor(2) as others:
        calls += [others.submit(admin.call, "POST", f"{CALL}?timeout={SECONDS}", 1) for _ in range(2)]
        until(lambda: waiting() == 4)
        for query in ("?timeout=1", "?timeout=1&output=void"):
            refused = third.call("POST", f"{CALL}{query}", 1)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
            assert "Too many requests that call algorithms whose image is still being pushed" in message_of(refused)
        end_badly(make_claim(job), ErrorClass.AUTH, "The password is wrong.")
        assert {call.result(SECONDS).status_code for call in calls} == {409}
    assert waiting() == 0
    acme.expect_refusal(409, 2015, "POST", f"{CALL}?timeout=1", 1)


@pytest.mark.usefixtures("job")
def test_all_calls_that_wait_for_a_version_share_one_query() -> None:
    watch = _Watch(one_row(Version, git_hash=HASH))
    first = watch.poll()
    assert first is not None
    watch._polled_at = float("inf")  # however slow this machine is, less than an interval ago
    with recorded_statements(database()) as statements:
        assert [watch.poll() for _ in range(10)] == [first] * 10
        assert statements == []
        watch._polled_at = 0.0
        watch.poll()
        assert len(statements) == 1
