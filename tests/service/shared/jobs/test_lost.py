"""A job whose worker was lost: reported and requeued without spending an attempt, a limited number of times."""

import pytest

from shared.commands.serve import ensure_instance
from shared.db.engine import database
from shared.db.models import Build, BuildStatus, ImagePush, InstanceState, Job, JobState, PushEvent, PushState
from shared.errors import ErrorClass
from shared.instances.states import DesiredState, record_start_progress
from shared.jobs.dispatch import JobMessage
from shared.jobs.leases import WORKER_STOPPED, release_all
from shared.jobs.stalls import lost_jobs, requeue_lost
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    build_commit,
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

pytestmark = pytest.mark.usefixtures("installation")


def requeue(job: Job, max_losses: int = 5) -> list[JobMessage]:
    with database().writing() as session:
        seen = dict(lost_jobs(session))
        return requeue_lost(session, job.id, claim=seen[job.id], max_losses=max_losses)


def test_a_living_lease_is_not_lost() -> None:
    make_claim(compile_commit(make_algorithm()).job)
    with database().reading() as session:
        assert lost_jobs(session) == []


def test_a_lost_push_is_due_again_and_says_so() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    make_claim(job)
    lose_lease(job)
    assert requeue(job) == [JobMessage(job.id, job.kind)]
    after = fresh(job)
    assert (after.state, after.tries, after.losses, after.lease_owner) == (JobState.QUEUED, 0, 1, None)
    row = one_row(ImagePush, id=job.push_id)
    assert row.state == PushState.STALLED
    assert "lost" in row.message
    assert one_row(PushEvent, push_id=row.id, kind="stalled-lost").state == PushState.STALLED
    assert try_claim(job, "worker/2") is not None
    assert one_row(ImagePush, id=job.push_id).state == PushState.IN_PROGRESS


def test_a_lost_build_is_due_again() -> None:
    job = compile_commit(make_algorithm()).job
    make_claim(job)
    lose_lease(job)
    requeue(job)
    assert one_row(Build, job_id=job.id).status == BuildStatus.QUEUED
    assert try_claim(job, "worker/2") is not None


def test_a_job_that_costs_worker_after_worker_fails() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    for _ in range(3):
        make_claim(job)
        lose_lease(job)
        requeue(job, max_losses=3)
    after = fresh(job)
    assert (after.state, after.error_class, after.losses) == (JobState.FAILED, ErrorClass.LOST, 3)
    assert one_row(ImagePush, id=job.push_id).state == PushState.FAILED


def test_two_sweeps_that_requeue_at_the_same_time_count_one_loss() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    make_claim(job)
    lose_lease(job)
    claim = fresh(job).claim

    def requeue_seen() -> list[JobMessage]:
        with database().writing() as session:
            return requeue_lost(session, job.id, claim=claim, max_losses=5)

    messages = run_concurrently(requeue_seen, requeue_seen, requeue_seen)
    assert sorted(len(sent) for sent in messages) == [0, 0, 1]
    assert fresh(job).losses == 1


def test_a_released_job_is_due_now_and_spends_no_attempt() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    claim = make_claim(job, "node-a/17")
    with database().writing() as session:
        messages = release_all(session, owner_prefix="node-a/")
    after = fresh(job)
    assert messages == [JobMessage(job.id, job.kind)]
    assert (after.state, after.tries, after.losses) == (JobState.QUEUED, 0, 0)
    assert after.claim > claim.number
    assert one_row(ImagePush, id=job.push_id).state == PushState.QUEUED
    assert try_claim(job, "node-b/1") is not None


def test_what_a_build_said_while_it_was_queued_again_goes_when_it_is_claimed() -> None:
    job = compile_commit(make_algorithm()).job
    make_claim(job, "node-a/17")
    with database().writing() as session:
        release_all(session, owner_prefix="node-a/")
    build = one_row(Build, id=job.build_id)
    assert (build.status, build.message) == (BuildStatus.QUEUED, WORKER_STOPPED)
    make_claim(job)
    build = fresh(build)
    assert (build.status, build.message) == (BuildStatus.RUNNING, None)


def test_an_instance_whose_worker_stops_says_that_the_next_worker_takes_over() -> None:
    build = build_commit(make_algorithm())
    with database().writing() as session:
        desired = DesiredState(
            owner="acme",
            algorithm_id=build.algorithm_id,
            version_id=build.version_id,
            git_hash=build.commit_sha,
            registry_id=None,
            image="acme/hello:1",
            digest=DIGEST,
            network="full",
        )
        instance, _messages = ensure_instance(session, desired)
        record_start_progress(session, instance.id, "Pulls the image.")
    make_claim(one_row(Job, id=instance.job_id), "node-a/1")
    with database().writing() as session:
        release_all(session, owner_prefix="node-a/")
    after = fresh(instance)
    assert (after.state, after.message) == (InstanceState.PENDING, WORKER_STOPPED)


def test_a_stopping_worker_releases_only_its_own_jobs() -> None:
    mine, theirs = compile_commit(make_algorithm()).job, compile_commit(make_algorithm()).job
    make_claim(mine, "node_a/1")
    make_claim(theirs, "nodeXa/1")  # the underscore is no wildcard
    with database().writing() as session:
        release_all(session, owner_prefix="node_a/")
    assert fresh(mine).state == JobState.QUEUED
    assert fresh(theirs).state == JobState.RUNNING


def test_a_stopping_worker_releases_the_locks_of_its_cancelled_jobs() -> None:
    build = build_commit(make_algorithm())
    job = push(build, make_registry("registry.example.com"))
    make_claim(job, "node-a/1")
    change(job, state=JobState.CANCELLED)
    twin = push(build, make_registry("https://registry.example.com"))
    with database().writing() as session:
        release_all(session, owner_prefix="node-a/")
    assert try_claim(twin, "node-b/1") is not None
