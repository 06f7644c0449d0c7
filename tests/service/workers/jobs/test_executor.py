"""Run one job: claimed, done outside of any transaction (rule 6), ended behind the fence."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from shared.commands.cancel import cancel_job
from shared.db.engine import database
from shared.db.models import Build, BuildStatus, Job, JobState
from shared.errors import ErrorClass, WorkError
from shared.settings import settings
from tests.concurrency import TIMEOUT_SECONDS, run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    HASH,
    change,
    compile_commit,
    fresh,
    lose_lease,
    make_claim,
    make_registry,
    one_row,
    push,
    try_claim,
)
from tests.service.workers.fake_work import FakeWork, wait_until_stopped
from workers.builds.build import write_built
from workers.builds.build_log import append_log
from workers.jobs.executor import run_job
from workers.jobs.heartbeat import Heartbeat
from workers.jobs.worker_id import lease_owner

pytestmark = pytest.mark.usefixtures("installation", "broker")


@pytest.fixture
def job() -> Job:
    return compile_commit(make_algorithm()).job


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def cancel(job: Job) -> None:
    with database().writing() as session:
        cancel_job(session, session.get_one(Job, job.seq))


def refuse(error_class: ErrorClass) -> Callable[[Any], None]:
    def do(_heartbeat: Heartbeat) -> None:
        raise WorkError(error_class, "It broke.")

    return do


def test_work_that_ends_well_is_written_with_the_end_of_the_job(job: Job) -> None:
    work = FakeWork()

    def finish(session: Session) -> None:
        write_built(
            session,
            work.claims[0],
            image_id="sha256:1",
            manifest_digest=None,
            image_bytes=1,
            environment_key=None,
        )

    work = FakeWork(finish=finish)
    run_job(job.id, work)
    assert (fresh(job).state, fresh(job).lease_owner) == (JobState.SUCCEEDED, None)
    assert one_row(Build, job_id=job.id).status == BuildStatus.SUCCEEDED


def test_a_job_is_claimed_in_the_name_of_this_process(job: Job) -> None:
    owners = []
    run_job(job.id, FakeWork(lambda _heartbeat: owners.append(fresh(job).lease_owner)))
    assert owners == [lease_owner()]


def test_a_message_that_comes_twice_does_the_work_once(job: Job) -> None:
    work = FakeWork()
    run_job(job.id, work)
    run_job(job.id, work)
    assert len(work.claims) == 1


def test_messages_at_the_same_time_do_the_work_once(job: Job) -> None:
    work = FakeWork()
    run_concurrently(*([partial(run_job, job.id, work)] * 4))
    assert len(work.claims) == 1


def test_no_connection_is_held_while_the_work_is_done(job: Job) -> None:
    held: list[int] = []
    pool = database().engine.pool
    assert isinstance(pool, QueuePool)

    def look(_heartbeat: Heartbeat) -> None:
        pause = threading.Event()
        # The lease's thread has one for a moment each second: what is looked for is one that stays.
        for _ in range(200):
            held.append(pool.checkedout())
            if held[-1] == 0:
                return
            pause.wait(0.01)

    run_job(job.id, FakeWork(look))
    assert held[-1] == 0


@pytest.mark.parametrize(
    ("error_class", "state", "tries"),
    [
        (ErrorClass.INVALID, JobState.FAILED, 0),
        (ErrorClass.TRANSIENT, JobState.QUEUED, 1),
        (ErrorClass.UNAVAILABLE, JobState.QUEUED, 0),
    ],
)
def test_an_error_ends_the_attempt_as_its_class_says(
    job: Job, error_class: ErrorClass, state: JobState, tries: int
) -> None:
    run_job(job.id, FakeWork(refuse(error_class)))
    after = fresh(job)
    assert (after.state, after.tries, after.lease_owner, after.error_class) == (state, tries, None, error_class)


def test_an_unexpected_error_is_retried_and_its_text_is_shown_to_no_caller(job: Job) -> None:
    def do(_heartbeat: Heartbeat) -> None:
        raise RuntimeError("password=open sesame")

    run_job(job.id, FakeWork(do))
    after = fresh(job)
    assert (after.state, after.error_class) == (JobState.QUEUED, ErrorClass.TRANSIENT)
    assert "RuntimeError" in (after.error_message or "")
    assert "sesame" not in (after.error_message or "")


def test_what_was_said_before_an_error_is_written(job: Job) -> None:
    work = FakeWork(refuse(ErrorClass.INVALID), write=lambda session: append_log(session, work.claims[0], "said\n"))
    run_job(job.id, work)
    with database().reading() as session:
        assert session.get_one(Build, one_row(Build, job_id=job.id).seq).log == "said\n"


def test_a_cancelled_job_is_stopped_in_the_middle_of_its_work(job: Job, pool: ThreadPoolExecutor) -> None:
    begun = threading.Event()

    def do(heartbeat: Heartbeat) -> None:
        begun.set()
        wait_until_stopped(heartbeat)

    running = pool.submit(run_job, job.id, FakeWork(do))
    assert begun.wait(TIMEOUT_SECONDS)
    cancel(job)
    running.result(TIMEOUT_SECONDS)
    after = fresh(job)
    assert (after.state, after.lease_owner) == (JobState.CANCELLED, None)
    assert one_row(Build, job_id=job.id).status == BuildStatus.CANCELLED


def test_a_superseded_push_is_stopped_and_its_lock_goes_to_the_newer_one(pool: ThreadPoolExecutor) -> None:
    algorithm, registry = make_algorithm(), make_registry()
    run_job(compile_commit(algorithm, HASH).job.id, FakeWork())
    build = one_row(Build, algorithm_id=algorithm.id)
    old, begun = push(build, registry), threading.Event()

    def do(heartbeat: Heartbeat) -> None:
        begun.set()
        wait_until_stopped(heartbeat)

    running = pool.submit(run_job, old.id, FakeWork(do))
    assert begun.wait(TIMEOUT_SECONDS)
    new = push(build, registry)
    running.result(TIMEOUT_SECONDS)
    assert (fresh(old).state, fresh(old).lease_owner) == (JobState.SUPERSEDED, None)
    assert try_claim(new) is not None


def test_work_that_ignores_the_cancel_token_ends_at_the_fence(job: Job) -> None:
    finished: list[object] = []
    run_job(job.id, FakeWork(lambda _heartbeat: cancel(job), finish=finished.append))
    assert (fresh(job).state, fresh(job).lease_owner) == (JobState.CANCELLED, None)
    assert finished == []


def test_a_worker_that_was_lost_writes_nothing(job: Job) -> None:
    def do(_heartbeat: Heartbeat) -> None:
        lose_lease(job)
        make_claim(job, "another/1")

    run_job(job.id, FakeWork(do))
    assert (fresh(job).state, fresh(job).lease_owner) == (JobState.RUNNING, "another/1")


def test_a_job_that_waits_for_its_next_attempt_is_left_alone(job: Job) -> None:
    run_job(job.id, FakeWork(refuse(ErrorClass.TRANSIENT)))
    work = FakeWork()
    run_job(job.id, work)
    assert work.claims == []
    change(job, next_attempt_at=None)
    run_job(job.id, work)
    assert len(work.claims) == 1


def test_the_time_limit_of_a_task_is_an_error_that_may_pass(job: Job) -> None:
    from celery.exceptions import SoftTimeLimitExceeded

    def do(_heartbeat: Heartbeat) -> None:
        raise SoftTimeLimitExceeded

    run_job(job.id, FakeWork(do))
    assert (fresh(job).state, fresh(job).tries) == (JobState.QUEUED, 1)
    assert str(settings().build_seconds) in (fresh(job).error_message or "")
