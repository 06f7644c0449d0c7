"""Rule 1: a job is done by the worker that claimed it with the conditional UPDATE, whatever messages come."""

import time
from functools import partial

import pytest
from sqlalchemy.exc import IntegrityError

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, BuildStatus, ImagePush, Job, JobState, PushState
from shared.errors import ErrorClass
from shared.jobs.leases import renew_lease
from shared.settings import settings
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    build_commit,
    change,
    compile_commit,
    end_badly,
    fresh,
    lose_lease,
    make_claim,
    make_registry,
    milliseconds_from_now,
    one_row,
    push,
    try_claim,
)

pytestmark = pytest.mark.usefixtures("installation")


def test_of_workers_that_claim_at_once_one_wins() -> None:
    job = compile_commit(make_algorithm()).job
    claims = run_concurrently(*(lambda number=number: try_claim(job, f"worker/{number}") for number in range(6)))
    winners = [claim for claim in claims if claim is not None]
    assert len(winners) == 1
    assert (fresh(job).lease_owner, fresh(job).claim) == (winners[0].owner, 1)


def test_a_second_message_does_nothing() -> None:
    job = compile_commit(make_algorithm()).job
    assert try_claim(job, "worker/1") is not None
    before = fresh(job)
    assert try_claim(job, "worker/2") is None
    after = fresh(job)
    assert (after.claim, after.lease_owner, after.lease_expires_at) == (1, "worker/1", before.lease_expires_at)


def test_a_message_for_an_ended_job_does_nothing() -> None:
    algorithm = make_algorithm()
    build = build_commit(algorithm)
    assert try_claim(one_row(Job, id=build.job_id)) is None


def test_a_message_for_an_unknown_job_does_nothing() -> None:
    job = compile_commit(make_algorithm()).job
    job.id = "no-such-job"
    assert try_claim(job) is None


def test_a_claim_shows_in_the_build() -> None:
    job = compile_commit(make_algorithm()).job
    make_claim(job)
    build = one_row(Build, job_id=job.id)
    assert build.status == BuildStatus.RUNNING
    assert build.started_at is not None


def test_a_claim_shows_in_the_push() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    claim = make_claim(job)
    row = one_row(ImagePush, id=job.push_id)
    assert (row.state, row.claim, row.generation) == (PushState.IN_PROGRESS, claim.number, claim.generation)
    assert row.started_at is not None


def test_a_lease_is_counted_by_the_database_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    job = compile_commit(make_algorithm()).job
    monkeypatch.setattr(time, "time", lambda: 0.0)  # this machine's clock is decades behind
    claim = make_claim(job)
    assert 0 < milliseconds_from_now(fresh(job).lease_expires_at) <= settings().lease_seconds * 1000
    assert try_claim(job, "worker/2") is None
    with database().writing() as session:
        renew_lease(session, claim, lease_seconds=1000)
    assert milliseconds_from_now(fresh(job).lease_expires_at) > 900_000


def test_an_expired_lease_is_taken_over_and_spends_no_attempt() -> None:
    job = compile_commit(make_algorithm()).job
    first = make_claim(job, "worker/1")
    lose_lease(job)
    second = make_claim(job, "worker/2")
    assert second.number > first.number
    assert (fresh(job).tries, fresh(job).losses) == (0, 1)


def test_a_lost_lease_is_taken_over_by_one_only() -> None:
    job = compile_commit(make_algorithm()).job
    make_claim(job)
    lose_lease(job)
    claims = run_concurrently(*(lambda number=number: try_claim(job, f"worker/{number}") for number in range(2, 6)))
    assert len([claim for claim in claims if claim is not None]) == 1


def test_a_job_is_not_claimed_before_its_next_attempt_is_due() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    end_badly(make_claim(job), ErrorClass.TRANSIENT)
    assert try_claim(job) is None
    change(job, next_attempt_at=now_ms())
    assert try_claim(job) is not None


def test_a_push_is_not_claimed_before_its_build_has_succeeded() -> None:
    enqueued = compile_commit(make_algorithm(), "a" * 40, make_registry())
    waiting = one_row(Job, parent_id=enqueued.job.id)
    assert try_claim(waiting) is None
    make_claim(enqueued.job)
    assert try_claim(waiting) is None


def test_two_registry_rows_of_one_address_are_never_written_at_the_same_time() -> None:
    build = build_commit(make_algorithm())
    first = push(build, make_registry("registry.example.com/team"))
    second = push(build, make_registry("https://Registry.Example.com:443/team"))
    assert fresh(first).lock_name == fresh(second).lock_name
    make_claim(first)
    assert try_claim(second, "worker/2") is None
    assert fresh(second).state == JobState.QUEUED


def test_of_two_claims_of_one_lock_at_the_same_time_one_succeeds() -> None:
    algorithm, registries = make_algorithm(), [make_registry("https://r.example.com"), make_registry("r.example.com")]
    for git_hash in ("a" * 40, "b" * 40, "c" * 40):
        build = build_commit(algorithm, git_hash)
        jobs = [push(build, registry) for registry in registries]
        claims = run_concurrently(partial(try_claim, jobs[0], "worker/1"), partial(try_claim, jobs[1], "worker/2"))
        assert len([claim for claim in claims if claim is not None]) == 1


def test_the_database_itself_refuses_a_second_worker_with_one_lock() -> None:
    build = build_commit(make_algorithm())
    first = push(build, make_registry("registry.example.com"))
    second = push(build, make_registry("http://registry.example.com:443"))
    make_claim(first)
    with pytest.raises(IntegrityError):
        change(second, lease_owner="worker/2")


def test_a_lock_is_taken_from_a_worker_whose_lease_has_expired() -> None:
    build = build_commit(make_algorithm())
    first = push(build, make_registry("registry.example.com"))
    second = push(build, make_registry("https://registry.example.com"))
    slow = make_claim(first, "worker/1")
    lose_lease(first)
    assert try_claim(second, "worker/2") is not None
    assert fresh(first).claim > slow.number
    assert one_row(ImagePush, id=first.push_id).claim > slow.number
