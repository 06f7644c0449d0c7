"""Rule 2: a worker that lost its claim changes nothing, whichever way it lost it and whatever it writes."""

from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.commands.cancel import cancel_job, end_all_of_registry
from shared.db.engine import database
from shared.db.models import Build, ImagePush, Job, PushEvent, Registry
from shared.errors import ErrorClass, WorkError
from shared.fence import Claim, FenceLostError
from shared.jobs.leases import release_all, release_lock, renew_lease, still_held
from shared.jobs.stalls import lost_jobs, requeue_lost
from shared.jobs.transitions import fail_or_retry, succeed
from shared.pushes.progress import Progress, write_progress, write_success
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    build_commit,
    columns_of,
    compile_commit,
    end_push,
    fresh,
    lose_lease,
    make_claim,
    make_registry,
    one_row,
    push,
)
from workers.builds.build_log import append_log

pytestmark = pytest.mark.usefixtures("installation")

NUMBERS = Progress(done_bytes=5, total_bytes=10, layers_done=1, layers_total=2)
BROKEN = WorkError(ErrorClass.TRANSIENT, "It broke.")


def taken_over(job: Job) -> None:
    lose_lease(job)
    make_claim(job, "worker/2")


def taken_over_and_done(job: Job) -> None:
    lose_lease(job)
    claim = make_claim(job, "worker/2")
    if job.push_id is not None:
        end_push(claim)


def pushed_again(job: Job) -> None:
    push(one_row(Build, id=job.build_id), one_row(Registry, id=job.registry_id))


def pushed_again_and_claimed(job: Job) -> None:
    # Both claims have the number 1: only the generation tells them apart.
    newer = push(one_row(Build, id=job.build_id), one_row(Registry, id=job.registry_id))
    lose_lease(job)
    make_claim(newer, "worker/2")


def cancelled(job: Job) -> None:
    with database().writing() as session:
        cancel_job(session, session.scalars(select(Job).where(Job.id == job.id)).one())


def registry_deleted(job: Job) -> None:
    with database().writing() as session:
        end_all_of_registry(session, str(job.registry_id))


def released(_job: Job) -> None:
    with database().writing() as session:
        release_all(session, owner_prefix="worker/")


def released_and_taken(job: Job) -> None:
    released(job)
    make_claim(job, "worker/2")


def requeued(job: Job) -> None:
    lose_lease(job)
    with database().writing() as session:
        for job_id, claim in lost_jobs(session):
            requeue_lost(session, job_id, claim=claim, max_losses=5)


def lock_taken(job: Job) -> None:
    registry = one_row(Registry, id=job.registry_id)
    twin = make_registry(f"https://{registry.registry_url}")
    lose_lease(job)
    make_claim(push(one_row(Build, id=job.build_id), twin), "worker/2")


WAYS_TO_LOSE_A_PUSH = [
    taken_over,
    taken_over_and_done,
    pushed_again,
    pushed_again_and_claimed,
    cancelled,
    registry_deleted,
    released,
    released_and_taken,
    requeued,
    lock_taken,
]
WAYS_TO_LOSE_A_BUILD = [taken_over, cancelled, released, released_and_taken, requeued]

PUSH_WRITES: dict[str, Callable[[Session, Claim], object]] = {
    "progress": lambda session, claim: write_progress(session, claim, NUMBERS, "Pushes."),
    "success": lambda session, claim: write_success(session, claim, digest=DIGEST, image="i", message="Confirmed."),
}
JOB_WRITES: dict[str, Callable[[Session, Claim], object]] = {
    "renewal": lambda session, claim: renew_lease(session, claim, lease_seconds=60),
    "end": succeed,
    "retry": lambda session, claim: fail_or_retry(session, claim, BROKEN, delays=(2, 8), unavailable_delay=15),
    "failure": lambda session, claim: fail_or_retry(session, claim, BROKEN, delays=(), unavailable_delay=15),
}


def all_rows() -> list[dict[str, object]]:
    with database().reading() as session:
        rows = [row for model in (Job, ImagePush, Build, PushEvent) for row in session.scalars(select(model))]
    return [columns_of(row) for row in rows]


def assert_changes_nothing(write: Callable[[Session, Claim], object], claim: Claim) -> None:
    before = all_rows()
    with pytest.raises(FenceLostError), database().writing() as session:
        write(session, claim)
    assert all_rows() == before


@pytest.mark.parametrize("lose", WAYS_TO_LOSE_A_PUSH)
def test_a_slow_push_writes_nothing_after(lose: Callable[[Job], None]) -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    slow = make_claim(job, "worker/1")
    lose(job)
    for write in (*PUSH_WRITES.values(), *JOB_WRITES.values()):
        assert_changes_nothing(write, slow)


@pytest.mark.parametrize("lose", WAYS_TO_LOSE_A_BUILD)
def test_a_slow_build_writes_nothing_after(lose: Callable[[Job], None]) -> None:
    job = compile_commit(make_algorithm()).job
    slow = make_claim(job, "worker/1")
    lose(job)
    for write in (lambda session, claim: append_log(session, claim, "line\n"), *JOB_WRITES.values()):
        assert_changes_nothing(write, slow)


@pytest.mark.parametrize("lose", WAYS_TO_LOSE_A_PUSH)
def test_a_worker_that_looks_sees_that_its_push_is_lost(lose: Callable[[Job], None]) -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    slow = make_claim(job, "worker/1")
    with database().reading() as session:
        assert still_held(session, slow)
    lose(job)
    with database().reading() as session:
        assert not still_held(session, slow)


@pytest.mark.parametrize("lose", [taken_over, released_and_taken, pushed_again_and_claimed])
def test_a_slow_worker_releases_no_lock_of_another_worker(lose: Callable[[Job], None]) -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    slow = make_claim(job, "worker/1")
    lose(job)
    with database().writing() as session:
        release_lock(session, slow)
    holder = one_row(Job, lease_owner="worker/2")
    assert holder.lock_name == fresh(job).lock_name


def test_the_holder_of_a_claim_writes() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    claim = make_claim(job)
    for write in PUSH_WRITES.values():
        with database().writing() as session:
            write(session, claim)
    assert one_row(ImagePush, id=job.push_id).digest == DIGEST
