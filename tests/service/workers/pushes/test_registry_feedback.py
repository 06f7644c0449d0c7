"""What a push finds out about its registry is recorded for all pushes, and its own job waits instead of failing."""

import time
import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, ImagePush, Job, JobState, PauseCause, PushState, Registry
from shared.registry.credentials import Credentials
from tests.git_service import make_algorithm
from tests.rows import OTHER_HASH, build_commit, change, fresh, make_registry, one_row, push
from tests.unit.shared.registry.fake_registry import VERSION, FakeRegistry, Reply, Request, fake_registry
from workers.jobs.executor import run_job, run_next_push
from workers.pushes.push import PushWork

pytestmark = pytest.mark.usefixtures("installation", "broker", "impatient")

RECORDED, OWN = Credentials("pusher", "recorded"), Credentials("pusher", "given")
LOGIN = {"WWW-Authenticate": 'Basic realm="here"', **VERSION}
SLOW_DOWN = Reply(429, b"{}", {"Retry-After": "7"})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two failures pause a registry."""
    from shared.settings import settings

    monkeypatch.setenv("LONGSHORE_PAUSE_AFTER_FAILURES", "2")
    settings.cache_clear()


def build() -> Build:
    return build_commit(make_algorithm(), uuid.uuid4().hex + "0" * 8)


def run(job: Job) -> ImagePush:
    run_job(job.id, PushWork)
    return one_row(ImagePush, id=job.push_id)


def refuses_everybody(_request: Request) -> Reply:
    return Reply(401, b"{}", LOGIN)


def test_recorded_credentials_that_are_refused_pause_it_and_the_next_pushes_wait() -> None:
    with fake_registry(refuses_everybody) as server:
        registry = make_registry(server.url, RECORDED)
        first, second, third = (push(build(), registry) for _ in range(3))
        assert run(first).state == PushState.FAILED
        row = run(second)
        assert (row.state, "answered 401" in row.message) == (PushState.QUEUED, True)
        assert (fresh(registry).paused_by, fresh(second).tries) == (PauseCause.AUTH, 0)
        before = len(server.requests)
        run(third)
        assert fresh(third).state == JobState.QUEUED
        assert len(server.requests) == before, "a paused registry gets no requests"


def test_given_credentials_that_are_refused_pause_nothing() -> None:
    with fake_registry(refuses_everybody) as server:
        registry = make_registry(server.url, RECORDED)
        rows = [run(push(build(), registry, OWN)) for _ in range(4)]
        assert {row.state for row in rows} == {PushState.FAILED}
        assert (fresh(registry).paused_at, fresh(registry).failures) == (None, 0)


def test_a_registry_that_is_away_pauses_for_everybody_and_costs_no_more_tries() -> None:
    with fake_registry(Reply(503)) as server:
        registry = make_registry(server.url, RECORDED)
        jobs = [push(build(), registry), push(build(), registry, OWN)]
        for job in jobs:
            run(job)
        assert [fresh(job).tries for job in jobs] == [1, 0]
        assert fresh(registry).paused_by == PauseCause.UNREACHABLE
        change(registry, probe_at=now_ms() - 1)
        run(jobs[1])
        assert (fresh(jobs[1]).tries, fresh(registry).probes) == (0, 1)


def test_a_429_slows_everybody_and_costs_no_try() -> None:
    with fake_registry(SLOW_DOWN) as server:
        registry = make_registry(server.url, RECORDED)
        first, second = push(build(), registry), push(build(), registry, OWN)
        assert run(first).state == PushState.QUEUED
        assert (fresh(first).tries, fresh(first).state) == (0, JobState.QUEUED)
        before = len(server.requests)
        run(second)
        assert len(server.requests) == before
        assert fresh(registry).throttled_until is not None


def test_an_owner_whose_own_account_is_throttled_slows_nobody_else() -> None:
    with fake_registry(SLOW_DOWN) as server:
        registry = make_registry(server.url, RECORDED)
        first, second = push(build(), registry, OWN), push(build(), registry)
        assert run(first).state == PushState.QUEUED
        assert fresh(registry).throttled_until is None
        assert fresh(first).tries == 0
        assert (fresh(first).next_attempt_at or 0) > time.time() * 1000
        before = len(server.requests)
        run(second)
        assert len(server.requests) > before


def test_what_the_registry_refuses_of_one_repository_concerns_nobody_else() -> None:
    def denies(request: Request) -> Reply:
        return Reply(200, b"{}", VERSION) if request.path == "/v2/" else Reply(403, b"{}")

    with fake_registry(denies) as server:
        registry = make_registry(server.url, RECORDED)
        for _ in range(3):
            run(push(build(), registry))
        assert fresh(registry).failures == 0


def test_a_message_brings_the_push_whose_turn_it_is(server_that_is_away: FakeRegistry) -> None:
    registry = make_registry(server_that_is_away.url, RECORDED)
    many = make_algorithm("many")
    older = [push(build_commit(many, git_hash), registry) for git_hash in (OTHER_HASH, "c" * 40)]
    (other,) = [push(build_commit(make_algorithm("one"), OTHER_HASH), registry)]
    run_next_push(older[0].id, PushWork)
    run_next_push(older[1].id, PushWork)
    with database().reading() as session:
        begun = session.scalars(select(Job.id).where(Job.kind == "push", Job.claim > 0)).all()
    assert set(begun) == {older[0].id, other.id}


@pytest.fixture
def server_that_is_away() -> Iterator[FakeRegistry]:
    with fake_registry(Reply(503)) as server:
        yield server


def test_a_registry_is_open_again_with_the_first_success(registry_row_that_failed: Registry) -> None:
    from shared.fence import Claim
    from workers.jobs.executor import record_registry_success

    record_registry_success(Claim("job", 1, "worker/1", registry_id=registry_row_that_failed.id))
    assert fresh(registry_row_that_failed).paused_at is None


@pytest.fixture
def registry_row_that_failed() -> Registry:
    return make_registry(
        paused_at=now_ms(), paused_by=PauseCause.UNREACHABLE, pause_reason="Away.", failures=2, probe_at=now_ms()
    )
