"""Push a build: one row for (version, registry), the older push is superseded, the last good one stays."""

import pytest

from shared.commands.cancel import cancel_job, end_all_of_algorithm, end_all_of_registry
from shared.db.engine import database
from shared.db.models import ImagePush, Job, JobState, PushEvent, PushState, Registry
from shared.errors import ConflictError, ErrorClass, NotFoundError
from shared.jobs.dispatch import JobMessage
from shared.jobs.leases import release_lock
from shared.registry.credentials import Credentials
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    DIGEST,
    HASH,
    build_commit,
    compile_commit,
    end_badly,
    end_push,
    fresh,
    lose_lease,
    make_claim,
    make_registry,
    one_row,
    publish,
    push,
    try_claim,
)

pytestmark = pytest.mark.usefixtures("installation")


def row_of(job: Job) -> ImagePush:
    return one_row(ImagePush, id=job.push_id)


def test_an_image_is_named_by_registry_owner_name_and_hash() -> None:
    algorithm = make_algorithm(owner="Acme", name="Hello_World")
    job = push(build_commit(algorithm), make_registry("https://Registry.Example.com:5000/team"))
    row = row_of(job)
    assert row.image == f"registry.example.com:5000/team/acme/hello_world:{HASH}"
    assert (row.state, row.message) == (PushState.QUEUED, "Waits for a worker.")


def test_an_older_push_ends_at_once() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    old = push(build, registry)
    make_claim(old)
    new = push(build, registry)
    assert (fresh(old).state, fresh(old).superseded_by) == (JobState.SUPERSEDED, new.id)
    assert (row_of(new).id, row_of(new).job_id, row_of(new).state) == (old.push_id, new.id, PushState.QUEUED)


def test_a_newer_push_waits_until_the_older_worker_has_released_the_lock() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    old = push(build, registry)
    slow = make_claim(old, "worker/1")
    new = push(build, registry)
    assert try_claim(new, "worker/2") is None
    with database().writing() as session:
        messages = release_lock(session, slow)
    assert messages == [JobMessage(new.id, new.kind)]
    assert try_claim(new, "worker/2") is not None


def test_a_newer_push_waits_no_longer_than_the_older_lease() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    old = push(build, registry)
    make_claim(old, "worker/1")
    new = push(build, registry)
    lose_lease(old)
    assert try_claim(new, "worker/2") is not None


def test_an_older_push_that_never_began_is_no_obstacle() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    push(build, registry)
    assert try_claim(push(build, registry)) is not None


def test_of_pushes_enqueued_at_the_same_time_one_is_left() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    jobs = run_concurrently(*([lambda: push(build, registry)] * 4))
    row = row_of(jobs[0])
    states = sorted(fresh(job).state for job in jobs)
    assert states == ["queued", "superseded", "superseded", "superseded"]
    assert (row.generation, fresh(one_row(Job, id=row.job_id)).state) == (4, JobState.QUEUED)


def test_a_push_to_another_registry_supersedes_nothing() -> None:
    build = build_commit(make_algorithm())
    first, second = push(build, make_registry()), push(build, make_registry())
    assert (fresh(first).state, fresh(second).state) == (JobState.QUEUED, JobState.QUEUED)
    assert first.push_id != second.push_id


def test_what_a_row_said_is_in_the_history() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    first = push(build, registry)
    end_push(make_claim(first))
    push(build, registry)
    said = one_row(PushEvent, push_id=first.push_id, kind="overwritten")
    assert (said.job_id, said.state, said.digest) == (first.id, PushState.SUCCEEDED, DIGEST)
    second = one_row(ImagePush, id=first.push_id).job_id
    push(build, registry)
    assert one_row(PushEvent, push_id=first.push_id, kind="superseded").job_id == second


def test_credentials_given_for_a_push_are_kept_sealed_and_end_with_it() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    job = push(build, registry, Credentials("pusher", "open sesame"))
    assert "open sesame" not in (fresh(job).credentials or "open sesame")
    push(build, registry)
    assert fresh(job).credentials is None


def test_a_push_to_an_unknown_registry_is_refused() -> None:
    with pytest.raises(NotFoundError):
        push(build_commit(make_algorithm()), Registry(id="00000000-0000-4000-8000-000000000000"))


def test_a_later_push_of_a_published_version_takes_its_number() -> None:
    algorithm = make_algorithm()
    build = build_commit(algorithm)
    publish(algorithm)
    assert push(build, make_registry()).semantic_version == "0.0.1"


def test_a_cancelled_push_is_shown_so_and_its_worker_releases_the_lock() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    job = push(build, registry)
    claim = make_claim(job)
    with database().writing() as session:
        cancel_job(session, session.get_one(Job, job.seq))
    assert (fresh(job).state, row_of(job).state) == (JobState.CANCELLED, PushState.CANCELLED)
    assert fresh(job).lease_owner == claim.owner
    with database().writing() as session:
        release_lock(session, claim)
    assert fresh(job).lease_owner is None


def test_what_has_ended_cannot_be_cancelled() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    end_push(make_claim(job))
    with pytest.raises(ConflictError), database().writing() as session:
        cancel_job(session, session.get_one(Job, job.seq))
    assert row_of(job).state == PushState.SUCCEEDED


def test_a_deleted_registry_ends_its_pushes() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    other = push(build, make_registry())
    job = push(build, registry)
    with database().writing() as session:
        end_all_of_registry(session, registry.id)
    assert (fresh(job).state, fresh(job).error_message) == (JobState.FAILED, "The registry was deleted.")
    assert (row_of(job).state, row_of(job).message) == (PushState.FAILED, "The registry was deleted.")
    assert fresh(other).state == JobState.QUEUED


def test_a_deleted_algorithm_ends_everything_of_it() -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm, HASH, make_registry())
    published = publish(algorithm, make_registry())
    with database().writing() as session:
        end_all_of_algorithm(session, algorithm.id)
    parts = [one_row(Job, parent_id=compiled.job.id), one_row(Job, parent_id=published.job.id)]
    assert {fresh(job).state for job in (compiled.job, published.job, *parts)} == {JobState.FAILED}
    assert {fresh(job).error_class for job in (compiled.job, *parts)} == {ErrorClass.INVALID}


def test_the_last_good_push_survives_a_failed_one_and_a_waiting_one() -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    first = push(build, registry)
    end_push(make_claim(first), DIGEST)
    good = row_of(first)
    assert (good.last_success_digest, good.last_success_seq) == (DIGEST, first.seq)
    second = push(build, registry)
    for end in (lambda: None, lambda: end_badly(make_claim(second), ErrorClass.AUTH), lambda: push(build, registry)):
        end()
        row = row_of(second)
        assert row.state in (PushState.QUEUED, PushState.FAILED)
        assert row.digest is None
        assert (row.last_success_digest, row.last_success_image, row.last_success_at, row.last_success_seq) == (
            DIGEST,
            good.last_success_image,
            good.last_success_at,
            first.seq,
        )


def test_the_latest_good_push_is_the_one_that_was_requested_last_not_the_one_that_ended_last() -> None:
    build = build_commit(make_algorithm())
    early, late = push(build, make_registry()), push(build, make_registry())
    early_claim, late_claim = make_claim(early, "worker/1"), make_claim(late, "worker/2")
    end_push(late_claim)
    end_push(early_claim)
    seqs = row_of(early).last_success_seq, row_of(late).last_success_seq
    assert seqs == (early.seq, late.seq)
    assert early.seq < late.seq


def test_a_retry_does_not_make_a_push_later() -> None:
    build = build_commit(make_algorithm())
    early, late = push(build, make_registry()), push(build, make_registry())
    end_push(make_claim(late))
    make_claim(early, "worker/1")
    lose_lease(early)
    end_push(make_claim(early, "worker/2"))
    assert (row_of(early).last_success_seq or 0) < (row_of(late).last_success_seq or 0)
