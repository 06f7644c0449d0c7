"""The heartbeat: it renews the lease, writes progress, and cancels the work when the claim is lost."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from shared.db.engine import database
from shared.db.models import Build
from shared.errors import WorkCancelledError
from shared.jobs.leases import release_all
from shared.settings import Settings, settings
from tests.concurrency import TIMEOUT_SECONDS
from tests.git_service import make_algorithm
from tests.rows import compile_commit, fresh, lose_lease, make_claim, milliseconds_from_now, one_row
from tests.service.workers.fake_work import nothing, wait_until_stopped
from workers.builds.build import BuildWork
from workers.jobs import heartbeat
from workers.jobs.heartbeat import Heartbeat

pytestmark = pytest.mark.usefixtures("installation")


@pytest.fixture(autouse=True)
def _short_poll_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "POLL_INTERVAL_SECONDS", 0.02)


def quick(**changes: object) -> Settings:
    """Return the settings with a renewal at each beat."""
    return settings().model_copy(update={"heartbeat_seconds": 0.01, **changes})


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(TIMEOUT_SECONDS * 50):
        if condition():
            return
        pause.wait(0.02)
    pytest.fail("the condition was not met in time")


def test_a_lease_is_renewed_while_the_work_runs() -> None:
    job = compile_commit(make_algorithm()).job
    claim = make_claim(job)
    before = milliseconds_from_now(fresh(job).lease_expires_at)
    with Heartbeat(database(), claim, quick(lease_seconds=1000), nothing) as heartbeat:
        until(lambda: milliseconds_from_now(fresh(job).lease_expires_at) > before + 800_000)
        assert not heartbeat.cancel_token.is_cancelled


def test_work_is_cancelled_when_another_worker_took_the_claim() -> None:
    job = compile_commit(make_algorithm()).job
    claim = make_claim(job)
    with Heartbeat(database(), claim, settings(), nothing) as heartbeat:
        with database().writing() as session:
            release_all(session, owner_prefix="worker/")
        with pytest.raises(WorkCancelledError, match="taken over"):
            wait_until_stopped(heartbeat)


def test_an_expired_lease_is_renewed_unless_another_worker_has_taken_the_job() -> None:
    job = compile_commit(make_algorithm()).job
    claim = make_claim(job)
    with Heartbeat(database(), claim, quick(), nothing) as heartbeat:
        lose_lease(job)
        until(lambda: milliseconds_from_now(fresh(job).lease_expires_at) > 0)
        assert not heartbeat.cancel_token.is_cancelled


def test_work_without_progress_loses_its_claim() -> None:
    claim = make_claim(compile_commit(make_algorithm()).job)
    beating = Heartbeat(database(), claim, quick(stuck_seconds=0), nothing)
    with beating as heartbeat, pytest.raises(WorkCancelledError, match="has made no progress"):
        wait_until_stopped(heartbeat)


def test_work_with_progress_keeps_its_claim() -> None:
    claim = make_claim(compile_commit(make_algorithm()).job)
    looks: list[object] = []
    with Heartbeat(database(), claim, quick(stuck_seconds=5), looks.append) as heartbeat:
        heartbeat._progressed_at -= 10
        heartbeat.record_progress()
        until(lambda: len(looks) > 3)
        assert not heartbeat.cancel_token.is_cancelled


def test_a_database_that_is_unreachable_for_a_moment_cancels_nothing() -> None:
    job = compile_commit(make_algorithm()).job
    claim = make_claim(job)
    looks: list[object] = []

    def break_twice(session: Session) -> None:
        looks.append(len(looks))
        if len(looks) < 3:
            session.execute(text("SELECT * FROM a_table_that_is_away"))

    with Heartbeat(database(), claim, quick(lease_seconds=1000), break_twice) as heartbeat:
        until(lambda: len(looks) > 4)
        assert not heartbeat.cancel_token.is_cancelled
    assert milliseconds_from_now(fresh(job).lease_expires_at) > 900_000


def test_a_database_that_stays_unreachable_cancels_the_work_before_another_worker_begins() -> None:
    claim = make_claim(compile_commit(make_algorithm()).job)

    def away(_session: Session) -> None:
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    beating = Heartbeat(database(), claim, quick(lease_seconds=0), away)
    with beating as heartbeat, pytest.raises(WorkCancelledError, match="database does not respond"):
        wait_until_stopped(heartbeat)


def test_an_unexpected_error_does_not_end_the_heartbeat() -> None:
    claim = make_claim(compile_commit(make_algorithm()).job)
    looks: list[object] = []

    def break_once(_session: Session) -> None:
        looks.append(len(looks))
        if len(looks) == 1:
            raise RuntimeError("a bug in what writes")

    with Heartbeat(database(), claim, quick(), break_once):
        until(lambda: len(looks) > 2)


def test_a_line_of_the_log_outlives_a_transaction_that_failed() -> None:
    job = compile_commit(make_algorithm()).job
    claim = make_claim(job)
    work = BuildWork(claim)
    work._log.add("one")
    with database().reading() as session:
        work.write(session)  # and rolled back
    work._log.add("two\0")
    for _ in range(2):
        with database().writing() as session:
            work.write(session)
    with database().reading() as session:
        assert session.get_one(Build, one_row(Build, job_id=job.id).seq).log == "one\ntwo\N{REPLACEMENT CHARACTER}\n"
