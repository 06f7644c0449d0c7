"""Rows are locked in one order: no job is missed, no transactions deadlock (PostgreSQL; SQLite has one lock)."""

import threading
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.db.models import Build, ImagePush, Job, JobState, PushState, Registry
from shared.fence import Claim
from shared.pushes.progress import write_success
from tests.concurrency import TIMEOUT_SECONDS, run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    build_commit,
    compile_commit,
    end_build,
    fresh,
    make_claim,
    make_registry,
    one_row,
    push,
)
from workers.jobs.executor import run_job
from workers.jobs.heartbeat import Heartbeat

pytestmark = pytest.mark.usefixtures("postgres_installation")

WAITERS = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


def wait_until_a_lock_is_awaited() -> None:
    pause = threading.Event()
    for _ in range(TIMEOUT_SECONDS * 100):
        with database().reading() as session:
            if session.scalar(WAITERS):
                return
        pause.wait(0.01)
    pytest.fail("no transaction waits for a lock")


class PushThatIsRepeatedAtItsEnd:
    """A push whose last transaction has written its row when a newer push of the same version is enqueued."""

    def __init__(self, claim: Claim, build: Build, registry: Registry) -> None:
        self.claim = claim
        self.newer: list[Job] = []
        self._newer_push = threading.Thread(target=lambda: self.newer.append(push(build, registry)))

    def write(self, _session: Session) -> None:
        """Nothing moved."""

    def do(self, _heartbeat: Heartbeat) -> Callable[[Session], None]:
        return self._finish

    def _finish(self, session: Session) -> None:
        write_success(session, self.claim, digest=DIGEST, image="i", message="Confirmed.")
        self._newer_push.start()
        wait_until_a_lock_is_awaited()

    def join(self) -> None:
        self._newer_push.join(TIMEOUT_SECONDS)


def test_a_push_that_ends_while_it_is_repeated_does_not_deadlock() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    job = push(build, registry)
    works = []

    def work_for(claim: Claim) -> PushThatIsRepeatedAtItsEnd:
        works.append(PushThatIsRepeatedAtItsEnd(claim, build, registry))
        return works[0]

    run_job(job.id, work_for)
    works[0].join()
    assert fresh(job).state == JobState.SUCCEEDED
    row = one_row(ImagePush, id=job.push_id)
    assert (row.state, row.last_success_digest, row.job_id) == (PushState.QUEUED, DIGEST, works[0].newer[0].id)


def test_a_compile_that_joins_while_the_build_ends_is_not_left_behind() -> None:
    algorithm = make_algorithm()
    for number in range(20):
        first = compile_commit(algorithm, f"{number:040x}").job
        claim = make_claim(first)
        _, second = run_concurrently(partial(end_build, claim), partial(compile_commit, algorithm, f"{number:040x}"))
        assert fresh(second.job).state == JobState.SUCCEEDED


def test_a_compile_and_a_push_to_the_same_registries_do_not_deadlock() -> None:
    algorithm, registries = make_algorithm(), [make_registry(), make_registry()]
    build = build_commit(algorithm)
    for _ in range(10):
        enqueued = run_concurrently(
            lambda: compile_commit(algorithm, build.commit_sha, *registries),
            lambda: compile_commit(algorithm, build.commit_sha, *reversed(registries)),
            lambda: push(build, registries[0]),
            lambda: push(build, registries[1]),
        )
        assert len(enqueued) == 4
    for registry in registries:
        row = one_row(ImagePush, registry_id=registry.id)
        live = one_row(Job, push_id=row.id, state=JobState.QUEUED)
        assert (live.id, live.generation) == (row.job_id, row.generation)
