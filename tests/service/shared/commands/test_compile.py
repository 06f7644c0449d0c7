"""Compile a commit: make a new build, or use the succeeded or running build of the same commit."""

import pytest

from shared.db.models import Build, BuildStatus, ImagePush, Job, JobKind, JobState, Version
from shared.errors import NotFoundError
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    HASH,
    OTHER_HASH,
    build_commit,
    compile_commit,
    end_badly,
    end_build,
    fresh,
    make_claim,
    make_registry,
    one_row,
    publish,
    try_claim,
)

pytestmark = pytest.mark.usefixtures("installation")


def test_a_commit_is_one_version_whatever_it_is_compiled() -> None:
    algorithm = make_algorithm()
    build_commit(algorithm)
    compile_commit(algorithm, force=True)
    assert one_row(Version, algorithm_id=algorithm.id).git_hash == HASH


def test_a_succeeded_build_is_used_again() -> None:
    algorithm = make_algorithm()
    build = build_commit(algorithm)
    again = compile_commit(algorithm)
    assert (again.job.state, again.job.build_id) == (JobState.SUCCEEDED, build.id)
    assert again.messages == []


def test_a_push_of_a_succeeded_build_is_due_at_once() -> None:
    algorithm = make_algorithm()
    build_commit(algorithm)
    again = compile_commit(algorithm, HASH, make_registry())
    pushed = one_row(Job, parent_id=again.job.id)
    assert [job_message.job_id for job_message in again.messages] == [pushed.id]
    assert try_claim(pushed) is not None


def test_a_running_build_is_joined() -> None:
    algorithm = make_algorithm()
    first = compile_commit(algorithm)
    make_claim(first.job)
    second = compile_commit(algorithm)
    assert (second.job.build_id, second.job.awaits_id) == (first.job.build_id, first.job.id)


def test_after_a_failed_build_a_new_one_is_made() -> None:
    algorithm = make_algorithm()
    first = compile_commit(algorithm)
    end_badly(make_claim(first.job))
    second = compile_commit(algorithm)
    assert second.job.build_id != first.job.build_id
    assert try_claim(second.job) is not None


def test_force_builds_a_commit_again() -> None:
    algorithm = make_algorithm()
    build = build_commit(algorithm)
    forced = compile_commit(algorithm, force=True)
    assert forced.job.build_id != build.id
    end_build(make_claim(forced.job))
    assert one_row(Build, job_id=forced.job.id).status == BuildStatus.SUCCEEDED


def test_a_refresh_builds_again_and_asks_for_newer_requirements() -> None:
    algorithm = make_algorithm()
    build = build_commit(algorithm)
    refreshed = one_row(Build, job_id=compile_commit(algorithm, refresh=True).job.id)
    assert (refreshed.id != build.id, refreshed.refreshes_environment) == (True, True)
    assert not build.refreshes_environment


def test_two_builds_of_one_version_never_run_at_the_same_time() -> None:
    algorithm = make_algorithm()
    first, second = compile_commit(algorithm), compile_commit(algorithm, force=True)
    make_claim(first.job, "worker/1")
    assert try_claim(second.job, "worker/2") is None


def test_a_push_is_one_row_for_each_registry() -> None:
    algorithm, registries = make_algorithm(), [make_registry(), make_registry()]
    enqueued = compile_commit(algorithm, HASH, *registries)
    for registry in registries:
        row = one_row(ImagePush, registry_id=registry.id)
        assert (row.registry_url, row.message) == (registry.registry_url, "Waits for its build.")
        assert one_row(Job, push_id=row.id).awaits_id == enqueued.job.id


def test_a_compile_with_an_unknown_registry_leaves_nothing_behind() -> None:
    algorithm, registry = make_algorithm(), make_registry()
    registry.id = "00000000-0000-4000-8000-000000000000"
    with pytest.raises(NotFoundError):
        compile_commit(algorithm, OTHER_HASH, registry)
    assert compile_commit(algorithm, OTHER_HASH).messages != []  # nothing to join


def test_compiles_of_one_commit_at_the_same_time_make_one_build() -> None:
    algorithm = make_algorithm()
    enqueued = run_concurrently(*([lambda: compile_commit(algorithm)] * 4))
    assert len({one.job.build_id for one in enqueued}) == 1
    assert sum(len(one.messages) for one in enqueued) == 1


def test_a_push_that_does_not_wait_for_a_publish_takes_no_number_that_is_only_reserved() -> None:
    algorithm, first, second = make_algorithm(), make_registry(), make_registry()
    compiled = compile_commit(algorithm)
    published = publish(algorithm, first)
    compile_commit(algorithm, HASH, second)
    assert one_row(Job, kind=JobKind.PUSH, registry_id=first.id).semantic_version == "0.0.1"
    assert one_row(Job, kind=JobKind.PUSH, registry_id=second.id).semantic_version is None
    end_build(make_claim(compiled.job))
    assert fresh(published.job).state == JobState.SUCCEEDED
