"""The class of an error decides what becomes of a job (design: a job's life)."""

from collections.abc import Callable

import pytest

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, BuildStatus, ImagePush, Job, JobState, PushEvent, PushState
from shared.errors import ErrorClass, WorkError
from shared.jobs.transitions import fail_or_retry
from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import (
    build_commit,
    change,
    compile_commit,
    database_time,
    end_badly,
    end_push,
    fresh,
    is_delayed,
    make_claim,
    make_registry,
    milliseconds_from_now,
    one_row,
    push,
)

pytestmark = pytest.mark.usefixtures("installation")


def make_push() -> Job:
    return push(build_commit(make_algorithm()), make_registry())


def fail_attempt(job: Job, error_class: ErrorClass, retry_after: float | None = None) -> Job:
    """Make one attempt that fails, without the wait before it."""
    change(job, next_attempt_at=None)
    claim = make_claim(job)
    error = WorkError(error_class, "It broke.", retry_after=retry_after)
    with database().writing() as session:
        fail_or_retry(session, claim, error, delays=settings().retry_delays, unavailable_delay=15)
    return fresh(job)


@pytest.mark.parametrize("error_class", [ErrorClass.AUTH, ErrorClass.NOT_FOUND, ErrorClass.INVALID])
def test_what_cannot_pass_fails_at_once(error_class: ErrorClass) -> None:
    job = fail_attempt(make_push(), error_class)
    assert (job.state, job.error_class, job.error_message) == (JobState.FAILED, error_class, "It broke.")
    row = one_row(ImagePush, id=job.push_id)
    assert (row.state, row.message) == (PushState.FAILED, "It broke.")
    assert row.finished_at is not None


def test_an_error_that_may_pass_gets_six_attempts() -> None:
    job = make_push()
    for number, delay in enumerate((2, 8, 30, 120, 600), start=1):
        began = database_time()
        after = fail_attempt(job, ErrorClass.TRANSIENT)
        assert (after.state, after.tries) == (JobState.QUEUED, number)
        assert is_delayed(after.next_attempt_at, began, delay * 1000, delay * 1200)
        row = one_row(ImagePush, id=job.push_id)
        assert (row.state, row.attempt) == (PushState.QUEUED, number + 1)
    assert fail_attempt(job, ErrorClass.TRANSIENT).state == JobState.FAILED


def test_jitter_only_adds_and_is_bounded() -> None:
    waits = set()
    for number in range(8):
        job = compile_commit(make_algorithm(), f"{number:040x}").job
        began = database_time()
        after = fail_attempt(job, ErrorClass.TRANSIENT, retry_after=1000)
        assert is_delayed(after.next_attempt_at, began, 1_000_000, 1_200_000)
        waits.add(round(milliseconds_from_now(after.next_attempt_at), -4))
    assert len(waits) > 1


def test_throttled_waits_as_the_registry_said() -> None:
    began = database_time()
    job = fail_attempt(make_push(), ErrorClass.THROTTLED, retry_after=300)
    assert job.state == JobState.QUEUED
    assert is_delayed(job.next_attempt_at, began, 300_000, 360_000)


def test_throttled_without_a_time_waits_as_any_other() -> None:
    began = database_time()
    job = fail_attempt(make_push(), ErrorClass.THROTTLED)
    assert is_delayed(job.next_attempt_at, began, 2_000, 2_400)


def test_an_unavailable_engine_spends_no_attempt() -> None:
    job = make_push()
    for _ in range(8):
        began = database_time()
        after = fail_attempt(job, ErrorClass.UNAVAILABLE)
    assert (after.state, after.tries) == (JobState.QUEUED, 0)
    assert is_delayed(after.next_attempt_at, began, 15_000, 15_000)
    assert "Looked at again in 15 s." in one_row(ImagePush, id=job.push_id).message


def test_a_retry_of_a_build_shows_in_the_build() -> None:
    job = fail_attempt(compile_commit(make_algorithm()).job, ErrorClass.TRANSIENT)
    build = one_row(Build, job_id=job.id)
    assert build.status == BuildStatus.QUEUED
    assert build.message is not None
    assert build.message.startswith("It broke.")


def test_a_failed_build_shows_why() -> None:
    job = fail_attempt(compile_commit(make_algorithm()).job, ErrorClass.INVALID)
    build = one_row(Build, job_id=job.id)
    assert (build.status, build.message) == (BuildStatus.FAILED, "It broke.")
    assert build.finished_at is not None


@pytest.mark.parametrize("end", [end_push, end_badly])
def test_credentials_are_deleted_when_the_job_ends(end: Callable[..., None]) -> None:
    job = make_push()
    change(job, credentials="sealed")
    end(make_claim(job))
    assert fresh(job).credentials is None


def test_a_retry_keeps_the_credentials() -> None:
    job = make_push()
    change(job, credentials="sealed")
    assert fail_attempt(job, ErrorClass.TRANSIENT).credentials == "sealed"


def test_attempts_and_ends_are_in_the_history() -> None:
    job = make_push()
    fail_attempt(job, ErrorClass.TRANSIENT)
    change(job, next_attempt_at=now_ms())
    end_push(make_claim(job))
    retried, ended = (
        one_row(PushEvent, push_id=job.push_id, kind="retry"),
        one_row(PushEvent, push_id=job.push_id, kind="ended"),
    )
    assert retried.message.startswith("It broke.")
    assert ended.state == PushState.SUCCEEDED


def test_a_message_that_no_database_can_hold_is_replaced() -> None:
    job = make_push()
    end_badly(make_claim(job), message="a registry's \0 and \ud800")
    assert fresh(job).state == JobState.FAILED
    assert "A registry's" in (fresh(job).error_message or "")
