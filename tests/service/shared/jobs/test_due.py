"""Messages are sent again for jobs that are due and unclaimed: losing every message loses no work (rule 1)."""

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Job, JobKind
from shared.errors import ErrorClass
from shared.jobs.dispatch import JobMessage
from shared.jobs.due import MAX_DISPATCHES, REDISPATCH_INTERVAL_MS, take_due_messages
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    HASH,
    build_commit,
    change,
    compile_commit,
    end_badly,
    fresh,
    lose_lease,
    make_claim,
    make_registry,
    one_row,
    publish,
    push,
)

pytestmark = pytest.mark.usefixtures("installation")


def due(limit: int = 100) -> list[JobMessage]:
    with database().writing() as session:
        return take_due_messages(session, limit=limit)


def test_what_is_due_is_dispatched() -> None:
    compiled = compile_commit(make_algorithm()).job
    pushed = push(build_commit(make_algorithm()), make_registry())
    assert due() == [JobMessage(compiled.id, JobKind.COMPILE), JobMessage(pushed.id, JobKind.PUSH)]


def test_what_was_dispatched_just_now_is_not_dispatched_again() -> None:
    compile_commit(make_algorithm())
    assert len(due()) == 1
    assert due() == []


def test_what_waits_or_runs_or_ended_is_not_dispatched() -> None:
    algorithm = make_algorithm()
    make_claim(compile_commit(algorithm, HASH, make_registry()).job)
    compile_commit(algorithm)  # joins
    publish(algorithm)
    build_commit(make_algorithm())
    backing_off = push(build_commit(make_algorithm()), make_registry())
    end_badly(make_claim(backing_off), ErrorClass.TRANSIENT)
    assert due() == []


def test_a_push_is_dispatched_when_its_build_has_succeeded_though_every_message_was_lost() -> None:
    compiled = compile_commit(make_algorithm(), HASH, make_registry()).job
    change(compiled, state="succeeded")
    assert due() == [JobMessage(one_row(Job, parent_id=compiled.id).id, JobKind.PUSH)]


def test_a_lost_job_is_dispatched() -> None:
    job = compile_commit(make_algorithm()).job
    make_claim(job)
    lose_lease(job)
    assert due() == [JobMessage(job.id, JobKind.COMPILE)]


def test_messages_become_rarer_and_stay_bounded() -> None:
    job = compile_commit(make_algorithm()).job
    for sent in (1, 2, 3):
        assert len(due()) == 1
        assert fresh(job).dispatch_count == sent
        change(job, dispatched_at=now_ms() - REDISPATCH_INTERVAL_MS * (sent + 1) + 5_000)
        assert due() == []
        change(job, dispatched_at=now_ms() - REDISPATCH_INTERVAL_MS * (sent + 1) - 1)
    change(
        job, dispatch_count=MAX_DISPATCHES, dispatched_at=now_ms() - REDISPATCH_INTERVAL_MS * (MAX_DISPATCHES + 1) - 1
    )
    assert len(due()) == 1
    assert fresh(job).dispatch_count == MAX_DISPATCHES


def test_a_claim_makes_messages_frequent_again() -> None:
    job = compile_commit(make_algorithm()).job
    change(job, dispatch_count=MAX_DISPATCHES)
    make_claim(job)
    assert fresh(job).dispatch_count == 0


def test_at_most_the_limit_is_dispatched_and_the_oldest_first() -> None:
    algorithm = make_algorithm()
    jobs = [compile_commit(algorithm, f"{number:040x}").job for number in range(5)]
    assert [job_message.job_id for job_message in due(limit=3)] == [job.id for job in jobs[:3]]
    assert [job_message.job_id for job_message in due(limit=3)] == [job.id for job in jobs[3:]]


def test_two_sweeps_at_the_same_time_dispatch_a_job_once() -> None:
    jobs = [compile_commit(make_algorithm()).job for _ in range(5)]
    messages = [job_message.job_id for sent in run_concurrently(due, due, due) for job_message in sent]
    assert sorted(messages) == sorted(job.id for job in jobs)
