"""The circuit breaker: opened by failures that concern every push, throttled by a 429, closed by a success."""

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, ImagePush, PauseCause, PushState, Registry
from shared.errors import ErrorClass, WorkError
from shared.jobs.due import take_due_messages
from shared.jobs.stalls import report_unclaimed
from shared.registries import circuit_breaker
from shared.registry.credentials import Credentials
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    OTHER_HASH,
    build_commit,
    change,
    database_time,
    end_push,
    fresh,
    is_delayed,
    make_claim,
    make_registry,
    one_row,
    push,
    try_claim,
)

pytestmark = pytest.mark.usefixtures("installation")

OWN = Credentials("pusher", "open sesame")
DELAYS = (30, 60, 120)


@pytest.fixture
def build() -> Build:
    return build_commit(make_algorithm())


def fail(registry: Registry, cause: PauseCause = PauseCause.UNREACHABLE, *, after: int = 3) -> bool:
    with database().writing() as session:
        return circuit_breaker.record_failure(
            session, registry.id, cause, "It is away.", pause_after=after, probe_delays=DELAYS
        )


def succeed(registry: Registry, *, own_credentials: bool = False) -> bool:
    with database().writing() as session:
        return circuit_breaker.record_success(session, registry.id, own_credentials=own_credentials)


def throttle(registry: Registry, retry_after: float | None = None) -> None:
    with database().writing() as session:
        circuit_breaker.record_throttle(session, registry.id, retry_after)


def paused(cause: PauseCause = PauseCause.UNREACHABLE, **columns: object) -> Registry:
    registry = make_registry()
    fail(registry, cause, after=1)
    change(registry, **columns)
    return fresh(registry)


def let_probe(registry: Registry) -> None:
    change(registry, probe_at=now_ms() - 1)


@pytest.mark.parametrize(
    ("error_class", "own", "cause"),
    [
        (ErrorClass.TRANSIENT, False, PauseCause.UNREACHABLE),
        (ErrorClass.TRANSIENT, True, PauseCause.UNREACHABLE),
        (ErrorClass.AUTH, False, PauseCause.AUTH),
        (ErrorClass.AUTH, True, None),
        (ErrorClass.INVALID, False, None),
        (ErrorClass.THROTTLED, False, None),
    ],
)
def test_wrong_credentials_of_one_push_do_not_count(
    error_class: ErrorClass, own: bool, cause: PauseCause | None
) -> None:
    assert circuit_breaker.pause_cause(WorkError(error_class, "It broke."), own_credentials=own) == cause


def test_a_registry_is_paused_after_the_configured_number_of_failures() -> None:
    registry = make_registry()
    changed_at = registry.updated_at
    assert [fail(registry), fail(registry), fail(registry), fail(registry)] == [False, False, True, False]
    now = fresh(registry)
    assert (now.paused_by, now.pause_reason, now.failures) == (PauseCause.UNREACHABLE, "It is away.", 4)
    assert now.updated_at == changed_at, "no administrator changed it"


def test_a_success_resets_the_count() -> None:
    registry = make_registry()
    fail(registry)
    fail(registry)
    assert succeed(registry) is False
    assert [fail(registry), fail(registry)] == [False, False]
    assert fresh(registry).paused_at is None


def test_simultaneous_failures_pause_it_once() -> None:
    registry = make_registry()
    assert sorted(run_concurrently(*[lambda: fail(registry)] * 6)) == [False] * 5 + [True]
    assert fresh(registry).failures == 6


def test_the_delay_before_a_probe_grows() -> None:
    registry = make_registry()
    for delay in (30, 60, 120, 120, 120):
        began = database_time()
        fail(registry, after=1)
        assert is_delayed(fresh(registry).probe_at, began, delay * 1000, delay * 1100)


def test_pushes_to_a_paused_registry_wait_and_are_not_dispatched(build: Build) -> None:
    registry = paused()
    job = push(build, registry)
    assert try_claim(job) is None
    with database().writing() as session:
        assert take_due_messages(session, limit=10) == []


def test_one_push_probes_it_and_the_others_wait(build: Build) -> None:
    registry = paused()
    first = push(build, registry)
    second = push(build_commit(make_algorithm(), OTHER_HASH), registry)
    let_probe(registry)
    claim = make_claim(first)
    assert try_claim(second) is None
    end_push(claim)
    assert succeed(registry) is True
    assert try_claim(second) is not None


def test_a_probe_whose_worker_dies_is_followed_by_another_one(build: Build) -> None:
    registry = paused()
    first = push(build, registry)
    second = push(build_commit(make_algorithm(), OTHER_HASH), registry)
    let_probe(registry)
    make_claim(first)
    let_probe(registry)  # the lease's length has passed
    assert try_claim(second) is not None


def test_a_push_with_its_own_credentials_is_not_paused_by_a_refusal_of_the_registrys_own(build: Build) -> None:
    registry = paused(PauseCause.AUTH)
    with_own = push(build, registry, OWN)
    without = push(build_commit(make_algorithm(), OTHER_HASH), registry)
    assert try_claim(without) is None
    end_push(make_claim(with_own))
    assert succeed(registry, own_credentials=True) is False
    assert fresh(registry).paused_by == PauseCause.AUTH
    assert succeed(registry) is True


def test_only_an_operator_ends_an_operators_pause(build: Build) -> None:
    registry = make_registry()
    with database().writing() as session:
        assert circuit_breaker.pause(session, session.get_one(Registry, registry.seq), "Maintenance.") is True
        assert circuit_breaker.pause(session, session.get_one(Registry, registry.seq), "Again.") is False
    job = push(build, registry, OWN)
    assert try_claim(job) is None
    assert (succeed(registry), fail(registry, after=1)) == (False, False)
    assert fresh(registry).pause_reason == "Maintenance."
    with database().writing() as session:
        assert circuit_breaker.resume(session, session.get_one(Registry, registry.seq)) is True
        assert circuit_breaker.resume(session, session.get_one(Registry, registry.seq)) is False
    assert try_claim(job) is not None


def test_no_push_goes_to_a_throttled_registry(build: Build) -> None:
    registry = make_registry()
    first = push(build, registry)
    second = push(build_commit(make_algorithm(), OTHER_HASH), registry, OWN)
    began = database_time()
    throttle(registry, 700)
    assert is_delayed(fresh(registry).throttled_until, began, 700_000, 700_000)
    assert (try_claim(first), try_claim(second)) == (None, None)
    change(registry, throttled_until=now_ms() - 1)
    claim = make_claim(first)
    assert try_claim(second) is None, "one at a time until one has succeeded"
    end_push(claim)
    succeed(registry)
    assert fresh(registry).throttled_until is None


def test_the_longest_retry_after_counts_and_without_one_the_delay_grows() -> None:
    registry = make_registry()
    began = database_time()
    throttle(registry, 100)
    throttle(registry, 1)
    assert is_delayed(fresh(registry).throttled_until, began, 100_000, 100_000)
    other = make_registry()
    for delay in (5, 10, 20):
        change(other, throttled_until=None)
        began = database_time()
        throttle(other)
        assert is_delayed(fresh(other).throttled_until, began, delay * 1000, delay * 1000)


def test_waiting_for_a_paused_registry_is_not_a_stall(build: Build) -> None:
    job = push(build, paused())
    change(job, created_at=now_ms() - 3_600_000)
    with database().writing() as session:
        assert report_unclaimed(session, after_seconds=60) == []
    assert one_row(ImagePush, id=job.push_id).state == PushState.QUEUED
