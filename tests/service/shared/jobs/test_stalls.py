"""Stalled pushes: reported when no worker can claim them or no byte is transferred, and never while they only wait."""

from collections.abc import Callable

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import ImagePush, Job, PushEvent, PushState, WorkerProcess
from shared.errors import ErrorClass
from shared.jobs.leases import release_all
from shared.jobs.stalls import report_no_progress, report_unclaimed
from shared.jobs.worker_processes import MAX_SILENCE_MS, refresh_worker
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    HASH,
    build_commit,
    change,
    compile_commit,
    end_badly,
    end_build,
    lose_lease,
    make_claim,
    make_registry,
    one_row,
    push,
    try_claim,
)

pytestmark = pytest.mark.usefixtures("installation")

LONG_AGO = now_ms() - 3_600_000


def unclaimed() -> list[str]:
    with database().writing() as session:
        return report_unclaimed(session, after_seconds=60)


def without_progress() -> list[str]:
    with database().writing() as session:
        return report_no_progress(session, after_seconds=300)


def old_push() -> Job:
    job = push(build_commit(make_algorithm()), make_registry())
    change(job, created_at=LONG_AGO)
    return job


def worker(queues: tuple[str, ...] = ("pushes",), seen_at: object = None) -> None:
    with database().writing() as session:
        refresh_worker(session, "worker-1", queues, None)
    if seen_at is not None:
        change(one_row(WorkerProcess, name="worker-1"), seen_at=seen_at)


def test_a_due_push_that_nobody_can_claim_is_reported_once() -> None:
    job = old_push()
    assert unclaimed() == [job.push_id]
    row = one_row(ImagePush, id=job.push_id)
    assert row.state == PushState.STALLED
    assert "No worker" in row.message
    assert one_row(PushEvent, push_id=row.id, kind="stalled-unclaimed").state == PushState.STALLED
    assert unclaimed() == []


def test_a_push_that_is_due_for_a_moment_is_not_stalled() -> None:
    push(build_commit(make_algorithm()), make_registry())
    assert unclaimed() == []


def test_a_backlog_is_no_stall() -> None:
    old_push()
    worker()
    assert unclaimed() == []


def test_workers_of_other_queues_claim_no_push() -> None:
    job = old_push()
    worker(("builds", "maintenance"))
    assert unclaimed() == [job.push_id]


def test_a_worker_that_does_not_refresh_its_row_claims_nothing() -> None:
    job = old_push()
    worker(seen_at=now_ms() - MAX_SILENCE_MS - 1)
    assert unclaimed() == [job.push_id]


def test_a_wait_for_the_next_attempt_is_no_stall() -> None:
    job = old_push()
    end_badly(make_claim(job), ErrorClass.TRANSIENT)
    assert unclaimed() == []
    change(job, next_attempt_at=now_ms() - 61_000)
    assert unclaimed() == [job.push_id]


def test_a_wait_for_a_build_is_no_stall_and_counts_for_nothing_afterwards() -> None:
    compiled = compile_commit(make_algorithm(), HASH, make_registry()).job
    waiting = one_row(Job, parent_id=compiled.id)
    for job in (compiled, waiting):
        change(job, created_at=LONG_AGO)
    claim = make_claim(compiled)
    assert unclaimed() == []
    end_build(claim)
    assert unclaimed() == []  # it is due for a moment only
    change(compiled, finished_at=now_ms() - 61_000)
    assert unclaimed() == [waiting.push_id]


def test_a_wait_for_a_lock_is_no_stall() -> None:
    build = build_commit(make_algorithm())
    make_claim(push(build, make_registry("registry.example.com")))
    waiting = push(build, make_registry("https://registry.example.com"))
    change(waiting, created_at=LONG_AGO)
    assert unclaimed() == []


def test_a_push_that_was_released_a_moment_ago_is_no_stall() -> None:
    job = old_push()
    make_claim(job, "node/1")
    with database().writing() as session:
        release_all(session, owner_prefix="node/")
    assert unclaimed() == []


def test_a_claim_ends_the_stall() -> None:
    job = old_push()
    unclaimed()
    assert try_claim(job) is not None
    assert one_row(ImagePush, id=job.push_id).state == PushState.IN_PROGRESS


def test_a_running_push_that_moves_no_byte_is_reported_once() -> None:
    job = old_push()
    make_claim(job)
    assert without_progress() == []
    change(one_row(ImagePush, id=job.push_id), progressed_at=now_ms() - 301_000)
    assert without_progress() == [job.push_id]
    row = one_row(ImagePush, id=job.push_id)
    assert row.state == PushState.STALLED
    assert "No byte has moved" in row.message
    assert one_row(PushEvent, push_id=row.id, kind="stalled-no-progress").state == PushState.STALLED
    assert without_progress() == []


def test_a_lost_push_is_not_without_progress() -> None:
    job = old_push()
    make_claim(job)
    lose_lease(job)
    change(one_row(ImagePush, id=job.push_id), progressed_at=now_ms() - 301_000)
    assert without_progress() == []


@pytest.mark.parametrize("report", [unclaimed, without_progress])
def test_two_sweeps_at_the_same_time_report_once(report: Callable[[], list[str]]) -> None:
    job = old_push()
    if report is without_progress:
        make_claim(job)
        change(one_row(ImagePush, id=job.push_id), progressed_at=now_ms() - 301_000)
    assert sorted(run_concurrently(report, report, report)) == [[], [], [job.push_id]]
