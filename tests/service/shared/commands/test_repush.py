"""Repeat failed pushes: each on its own, with a reason for each that is left out."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.commands import repush as retrying
from shared.commands.bulk import BulkResult
from shared.commands.repush import Retry, retry_all, retry_pushes
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Algorithm, Build, BuildStatus, ImagePush, Job, JobState, PushState, Registry
from shared.registry.credentials import Credentials
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    OTHER_HASH,
    build_commit,
    change,
    end_badly,
    end_push,
    fresh,
    make_claim,
    make_registry,
    one_row,
    push,
)

pytestmark = pytest.mark.usefixtures("installation")

OWN = Credentials("pusher", "open sesame")


def failed_push(registry: Registry, credentials: Credentials | None = None) -> Job:
    job = push(build_commit(make_algorithm()), registry, credentials)
    end_badly(make_claim(job))
    return job


def retried(**wanted: Any) -> BulkResult:
    return retry_pushes(database(), Retry(**wanted))


def reasons(result: BulkResult) -> list[str]:
    return [each.reason for each in result.skipped]


def test_failed_pushes_are_enqueued_again_and_others_are_left_alone() -> None:
    registry = make_registry()
    failed = failed_push(registry)
    good = push(build_commit(make_algorithm()), registry)
    end_push(make_claim(good))
    result = retried()
    (new_id,) = result.jobs
    row = one_row(ImagePush, id=failed.push_id)
    assert (row.job_id, row.state, row.generation) == (new_id, PushState.QUEUED, 2)
    assert [job_message.job_id for job_message in result.messages] == [new_id]
    assert one_row(ImagePush, id=good.push_id).job_id == good.id
    assert retried().jobs == []


def test_only_those_of_the_registry_algorithm_and_state_that_are_named() -> None:
    first, second = failed_push(make_registry()), failed_push(make_registry())
    cancelled = push(build_commit(make_algorithm()), make_registry())
    change(one_row(ImagePush, id=cancelled.push_id), state=PushState.CANCELLED)
    assert len(retried(registry_id=first.registry_id).jobs) == 1
    assert len(retried(algorithm_id=second.algorithm_id).jobs) == 1
    assert len(retried(status=PushState.CANCELLED).jobs) == 1


def test_all_of_one_call_have_one_parent() -> None:
    registry = make_registry()
    for _ in range(3):
        failed_push(registry)
    first, *others = retried().jobs
    assert {one_row(Job, id=job_id).parent_id for job_id in others} == {first}
    assert one_row(Job, id=first).parent_id is None


def test_given_credentials_are_sealed_for_each() -> None:
    registry = make_registry()
    failed_push(registry, OWN)
    (job_id,) = retried(registry_id=registry.id, credentials=OWN).jobs
    job = one_row(Job, id=job_id)
    assert job.credentials is not None
    assert "sesame" not in job.credentials


def test_credentials_that_are_gone_are_a_reason_unless_the_registry_has_some() -> None:
    failed_push(make_registry(), OWN)
    with_own = make_registry(None, OWN)
    failed_push(with_own, OWN)
    result = retried()
    assert [one_row(Job, id=job_id).registry_id for job_id in result.jobs] == [with_own.id]
    (reason,) = reasons(result)
    assert reason.startswith("The credentials of that push were not kept")


def test_what_is_deleted_or_not_built_is_a_reason() -> None:
    of_registry, of_algorithm, of_build = (failed_push(make_registry()) for _ in range(3))
    change(one_row(Registry, id=of_registry.registry_id), deleted_at=now_ms())
    change(one_row(Algorithm, id=of_algorithm.algorithm_id), deleted_at=now_ms())
    change(one_row(Build, id=of_build.build_id), status=BuildStatus.FAILED)
    result = retried()
    assert result.jobs == []
    assert reasons(result) == [
        "The registry was deleted.",
        "The algorithm was deleted.",
        "The version has no succeeded build; compile it first.",
    ]


def test_a_stalled_push_is_superseded_by_its_retry() -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    change(one_row(ImagePush, id=job.push_id), state=PushState.STALLED)
    (new_id,) = retried(status=PushState.STALLED).jobs
    assert (fresh(job).state, fresh(job).superseded_by) == (JobState.SUPERSEDED, new_id)


def test_retries_at_the_same_time_enqueue_each_push_once() -> None:
    registry = make_registry()
    jobs = [failed_push(registry) for _ in range(4)]
    results = run_concurrently(retried, retried, retried)
    assert len([job_id for result in results for job_id in result.jobs]) == 4
    assert [one_row(ImagePush, id=job.push_id).generation for job in jobs] == [2] * 4


def test_more_than_one_call_takes_is_done_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "MAX_AT_ONCE", 2)
    gone = failed_push(make_registry())
    change(one_row(Registry, id=gone.registry_id), deleted_at=now_ms())
    registry = make_registry()
    for git_hash in ("a" * 40, "b" * 40, "c" * 40, OTHER_HASH):
        job = push(build_commit(make_algorithm(), git_hash), registry)
        end_badly(make_claim(job))
    assert retried().last is not None
    results = list(retry_all(database(), Retry()))
    assert sum(len(result.jobs) for result in results) == 3
    assert len(reasons(results[0])) == 1
    assert results[-1].last is None


def test_a_conflict_with_another_request_ends_a_retry_after_what_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "MAX_IN_TRANSACTION", 1)
    first, second = failed_push(make_registry()), failed_push(make_registry())
    conflict = IntegrityError("INSERT", {}, Exception("the idempotency key exists"))
    recorded: list[str] = []

    def record(_session: Session, jobs: Sequence[Job]) -> None:
        if recorded:
            raise conflict
        recorded.extend(job.id for job in jobs)

    result = retry_pushes(database(), Retry(), record=record)
    assert result.jobs == recorded == [message.job_id for message in result.messages]
    states = [one_row(ImagePush, id=job.push_id).state for job in (first, second)]
    assert states == [PushState.QUEUED, PushState.FAILED]
    (late,) = retry_pushes(database(), Retry(), after=result.last or 0).jobs
    assert one_row(ImagePush, id=second.push_id).job_id == late


def test_a_conflict_before_anything_is_enqueued_is_raised() -> None:
    failed = failed_push(make_registry())

    def record(_session: Session, _jobs: Sequence[Job]) -> None:
        raise IntegrityError("INSERT", {}, Exception("the idempotency key exists"))

    with pytest.raises(IntegrityError):
        retry_pushes(database(), Retry(), record=record)
    assert one_row(ImagePush, id=failed.push_id).state == PushState.FAILED


def test_a_retry_keeps_the_request_number_of_the_push_that_it_repeats() -> None:
    """Production fails, sandbox succeeds after it: a later success of production does not take over."""
    build, production, sandbox = build_commit(make_algorithm()), make_registry(), make_registry()
    failed = push(build, production)
    end_badly(make_claim(failed))
    later = push(build, sandbox)
    end_push(make_claim(later))
    for _ in range(2):  # the second one repeats what repeats
        (again,) = retried(registry_id=production.id).jobs
        assert one_row(Job, id=again).request_seq == failed.seq
        end_badly(make_claim(one_row(Job, id=again)))
    (third,) = retried(registry_id=production.id).jobs
    end_push(make_claim(one_row(Job, id=third)))
    seqs = [one_row(ImagePush, id=job.push_id).last_success_seq for job in (failed, later)]
    assert seqs == [failed.seq, later.seq]
    end_push(make_claim(push(build, production)))
    assert (one_row(ImagePush, id=failed.push_id).last_success_seq or 0) > later.seq, (
        "requested again, it is the latest"
    )
