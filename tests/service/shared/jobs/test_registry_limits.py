"""The capacity of a registry: a limited number of pushes at the same time, and the next one when one has ended."""

import pytest

from shared.commands.cancel import cancel_job
from shared.db.engine import database
from shared.db.models import Job, JobState, Registry
from shared.errors import ErrorClass, WorkError
from shared.jobs.dispatch import JobMessage
from shared.jobs.leases import release_lock
from shared.jobs.transitions import fail_or_retry, succeed
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    build_commit,
    change,
    compile_commit,
    fresh,
    lose_lease,
    make_claim,
    make_registry,
    push,
    try_claim,
)

pytestmark = pytest.mark.usefixtures("installation")


def pushes_to(registry: Registry, number: int) -> list[Job]:
    return [push(build_commit(make_algorithm()), registry) for _ in range(number)]


def dispatched(messages: list[JobMessage]) -> list[str]:
    return [job_message.job_id for job_message in messages]


def test_a_full_registry_takes_no_more() -> None:
    registry = make_registry(max_pushes=2)
    first, second, third = pushes_to(registry, 3)
    make_claim(first, "worker/1")
    make_claim(second, "worker/2")
    assert try_claim(third) is None
    other = push(build_commit(make_algorithm()), make_registry())
    assert try_claim(other) is not None, "another registry has capacity"


def test_of_claims_at_the_same_time_one_takes_the_last_capacity() -> None:
    registry = make_registry(max_pushes=2)
    jobs = pushes_to(registry, 6)
    claims = run_concurrently(*[lambda job=job: try_claim(job, f"worker/{job.seq}") for job in jobs])
    assert len([claim for claim in claims if claim is not None]) == 2
    assert len([job for job in jobs if fresh(job).state == JobState.RUNNING]) == 2


def test_without_a_number_of_its_own_the_setting_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.settings import settings

    monkeypatch.setenv("LONGSHORE_REGISTRY_PUSHES", "1")
    settings.cache_clear()
    first, second = pushes_to(make_registry(), 2)
    make_claim(first)
    assert try_claim(second) is None


def test_the_end_of_a_push_dispatches_the_next_one_where_the_registry_was_full() -> None:
    registry = make_registry(max_pushes=1)
    first, second, _third = pushes_to(registry, 3)
    claim = make_claim(first)
    with database().writing() as session:
        assert dispatched(succeed(session, claim)) == [second.id]


def test_a_requeued_push_frees_capacity_too() -> None:
    registry = make_registry(max_pushes=1)
    first, second = pushes_to(registry, 2)
    claim = make_claim(first)
    error = WorkError(ErrorClass.TRANSIENT, "It broke.")
    with database().writing() as session:
        assert dispatched(fail_or_retry(session, claim, error, delays=(60,), unavailable_delay=15)) == [second.id]


def test_a_cancelled_push_frees_capacity_when_its_worker_has_released_the_lock() -> None:
    registry = make_registry(max_pushes=1)
    first, second = pushes_to(registry, 2)
    claim = make_claim(first)
    with database().writing() as session:
        cancel_job(session, session.get_one(Job, first.seq))
    assert try_claim(second) is None
    with database().writing() as session:
        assert dispatched(release_lock(session, claim)) == [second.id]
    assert try_claim(second) is not None


def test_where_there_is_capacity_no_push_is_dispatched_twice() -> None:
    registry = make_registry(max_pushes=5)
    first, _second = pushes_to(registry, 2)
    claim = make_claim(first)
    with database().writing() as session:
        assert succeed(session, claim) == []


def test_a_lost_worker_takes_no_capacity() -> None:
    registry = make_registry(max_pushes=1)
    first, second = pushes_to(registry, 2)
    make_claim(first)
    lose_lease(first)
    assert try_claim(second) is not None


def test_a_build_waits_for_no_registry() -> None:
    enqueued = compile_commit(make_algorithm(), "0" * 40, make_registry(max_pushes=1))
    change(enqueued.job, registry_id=None)
    assert try_claim(enqueued.job) is not None
