"""Jobs that wait for another job: resolved when that job ends, and repaired by query."""

import pytest

from shared.commands.cancel import cancel_job
from shared.db.engine import database
from shared.db.models import ImagePush, Job, JobKind, JobState, PushState, Version
from shared.db.models.algorithms import PublishState
from shared.errors import ErrorClass
from shared.jobs.dependencies import resolve_overdue
from shared.jobs.dispatch import JobMessage
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    HASH,
    change,
    compile_commit,
    end_badly,
    end_build,
    end_push,
    fresh,
    make_claim,
    make_registry,
    one_row,
    publish,
    try_claim,
)

pytestmark = pytest.mark.usefixtures("installation")


def resolve() -> list[JobMessage]:
    with database().writing() as session:
        return resolve_overdue(session)


def test_a_push_is_due_when_its_build_has_succeeded() -> None:
    enqueued = compile_commit(make_algorithm(), HASH, make_registry())
    waiting = one_row(Job, parent_id=enqueued.job.id)
    assert enqueued.messages == [JobMessage(enqueued.job.id, JobKind.COMPILE)]
    end_build(make_claim(enqueued.job))
    end_push(make_claim(waiting))
    assert fresh(waiting).state == JobState.SUCCEEDED


def test_a_push_fails_with_its_build_and_says_why() -> None:
    enqueued = compile_commit(make_algorithm(), HASH, make_registry())
    waiting = one_row(Job, parent_id=enqueued.job.id)
    end_badly(make_claim(enqueued.job), ErrorClass.INVALID, "requirements.txt, line 3: no such package.")
    after = fresh(waiting)
    assert (after.state, after.error_class) == (JobState.FAILED, ErrorClass.INVALID)
    assert "requirements.txt, line 3: no such package." in (after.error_message or "")
    row = one_row(ImagePush, id=waiting.push_id)
    assert (row.state, row.message) == (PushState.FAILED, after.error_message)
    assert row.finished_at is not None


def test_a_build_that_is_retried_keeps_its_push_waiting() -> None:
    enqueued = compile_commit(make_algorithm(), HASH, make_registry())
    end_badly(make_claim(enqueued.job), ErrorClass.TRANSIENT)
    assert one_row(Job, parent_id=enqueued.job.id).state == JobState.QUEUED


def test_a_publish_and_its_push_wait_for_the_build() -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm)
    published = publish(algorithm, make_registry())
    pushed = one_row(Job, parent_id=published.job.id)
    assert (published.job.state, pushed.awaits_id) == (JobState.QUEUED, published.job.id)
    assert try_claim(pushed) is None
    end_build(make_claim(compiled.job))
    assert fresh(published.job).state == JobState.SUCCEEDED
    assert one_row(Version, algorithm_id=algorithm.id).publish_state == PublishState.PUBLISHED
    assert try_claim(pushed) is not None


def test_a_failed_build_fails_the_publish_and_its_push() -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm)
    published = publish(algorithm, make_registry(), callability="public")
    end_badly(make_claim(compiled.job), ErrorClass.INVALID, "src/Hello.py is missing.")
    pushed = one_row(Job, parent_id=published.job.id)
    assert (fresh(published.job).state, pushed.state) == (JobState.FAILED, JobState.FAILED)
    for job in (fresh(published.job), pushed):
        assert "src/Hello.py is missing" in (job.error_message or "")
    version = one_row(Version, algorithm_id=algorithm.id)
    assert (version.publish_state, version.semantic_version, version.build_id) == (PublishState.NO, None, None)
    assert version.callability == "private"


def test_a_cancelled_build_ends_what_waits_for_it() -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm, HASH, make_registry())
    published = publish(algorithm)
    with database().writing() as session:
        cancel_job(session, session.get_one(Job, compiled.job.seq))
    assert fresh(published.job).state == JobState.FAILED
    assert one_row(Job, parent_id=compiled.job.id).state == JobState.FAILED


def test_a_compile_that_joined_ends_with_the_build_it_joined() -> None:
    algorithm = make_algorithm()
    first, second = compile_commit(algorithm), compile_commit(algorithm, HASH, make_registry())
    assert second.job.awaits_id == first.job.id
    end_build(make_claim(first.job))
    assert fresh(second.job).state == JobState.SUCCEEDED
    assert try_claim(one_row(Job, parent_id=second.job.id)) is not None


@pytest.mark.parametrize(
    ("ended", "resolved"), [(JobState.SUCCEEDED, JobState.SUCCEEDED), (JobState.FAILED, JobState.FAILED)]
)
def test_dependents_that_an_end_left_behind_are_resolved_later(ended: JobState, resolved: JobState) -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm)
    published = publish(algorithm, make_registry())
    change(compiled.job, state=ended, error_message="Its worker crashed.")
    resolve()
    assert fresh(published.job).state == resolved
    expected = PublishState.PUBLISHED if resolved == JobState.SUCCEEDED else PublishState.NO
    assert one_row(Version, algorithm_id=algorithm.id).publish_state == expected
    pushed = one_row(Job, parent_id=published.job.id)
    assert pushed.state == (JobState.QUEUED if resolved == JobState.SUCCEEDED else JobState.FAILED)


def test_resolving_leaves_jobs_whose_dependency_runs() -> None:
    algorithm = make_algorithm()
    compile_commit(algorithm, HASH, make_registry())
    published = publish(algorithm)
    resolve()
    assert fresh(published.job).state == JobState.QUEUED


def test_resolving_twice_at_the_same_time_is_harmless() -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm)
    published = publish(algorithm)
    change(compiled.job, state=JobState.SUCCEEDED)
    run_concurrently(resolve, resolve, resolve)
    assert fresh(published.job).state == JobState.SUCCEEDED
    assert one_row(Version, algorithm_id=algorithm.id).semantic_version == "0.0.1"
