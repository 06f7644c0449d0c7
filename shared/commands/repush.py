"""Push an image to the same registry once more: a retry of a failed push, or the repair of an image that is missing.

A repeated push keeps the request number of the push that it repeats: callers decide which good push is the latest,
and so where executions pull from, and no repair changes that.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from sqlalchemy import Select, bindparam, exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared.algorithms import image_build
from shared.commands.bulk import MAX_AT_ONCE, MAX_IN_TRANSACTION, BulkResult, Record, Skipped
from shared.commands.push import Enqueued, PushRequest, enqueue_push
from shared.db.engine import Database
from shared.db.models import Algorithm, Build, ImagePush, Job, PushState, Registry, Version
from shared.fence import lock_version
from shared.registries.defaults import defaults_with_credentials
from shared.registry.credentials import Credentials

_LOCKED_REGISTRY = select(Registry.id).where(Registry.id == bindparam("registry")).with_for_update()
RETRIABLE = (PushState.FAILED, PushState.CANCELLED, PushState.STALLED)


@dataclass(frozen=True)
class Retry:
    """A selection of pushes to repeat."""

    status: PushState = PushState.FAILED
    registry_id: str | None = None
    algorithm_id: str | None = None
    credentials: Credentials | None = None
    """For all of them, which then go to one registry; None: those that are stored."""
    dry_run: bool = False
    """Whether to count only, and enqueue nothing."""


def retry_pushes(
    database: Database,
    retry: Retry,
    *,
    after: int = 0,
    request_id: str | None = None,
    record: Record | None = None,
) -> BulkResult:
    """Enqueue again the pushes that are in the given state, the oldest first, up to 100 in one transaction.

    A push whose state changes meanwhile is left alone, because another request enqueued it. `after`: `last` of the
    previous call. A conflict with another request ends the call after the steps that are committed.

    Raises:
        sqlalchemy.exc.IntegrityError: another request has the idempotency key; nothing was enqueued.
    """
    done = BulkResult()
    with database.reading() as session:
        rows = session.execute(
            _matching(retry).where(ImagePush.seq > after).order_by(ImagePush.seq).limit(MAX_AT_ONCE + 1)
        ).all()
    taken = rows[:MAX_AT_ONCE]
    for start in range(0, len(taken), MAX_IN_TRANSACTION):
        step = taken[start : start + MAX_IN_TRANSACTION]
        retried = replace(done, jobs=[*done.jobs], skipped=[*done.skipped], messages=[*done.messages])
        try:
            with database.writing() as session:
                # As everywhere: registries before versions, each in one order (`shared.fence`).
                for registry_id in sorted({row.registry_id for row in step}):
                    session.execute(_LOCKED_REGISTRY, {"registry": registry_id})
                for version_id in sorted({row.version_id for row in step}):
                    lock_version(session, version_id)
                jobs = [job for row in step for job in _retry_one(session, row.id, retry, retried, request_id)]
                if jobs and record is not None:
                    record(session, jobs)
        except IntegrityError:
            if not done.jobs:
                raise
            # What was committed is the result; the next call goes on behind it.
            return replace(done, last=taken[start - 1].seq)
        done = retried
    return replace(done, last=taken[-1].seq if len(rows) > len(taken) else None)


def _matching(retry: Retry) -> Select[tuple[int, str, str, str]]:
    query = select(ImagePush.seq, ImagePush.id, ImagePush.registry_id, ImagePush.version_id)
    query = query.where(ImagePush.state == retry.status)
    if retry.registry_id is not None:
        query = query.where(ImagePush.registry_id == retry.registry_id)
    if retry.algorithm_id is not None:
        query = query.where(
            exists().where(Version.id == ImagePush.version_id, Version.algorithm_id == retry.algorithm_id)
        )
    return query


def _retry_one(session: Session, push_id: str, retry: Retry, retried: BulkResult, request_id: str | None) -> list[Job]:
    push, registry = _lock_push(session, push_id)
    if push.state != retry.status:
        return []
    repush = _check_repush(session, push, registry, has_credentials=retry.credentials is not None)
    if isinstance(repush, Skipped):
        retried.skipped.append(repush)
        return []
    retried.enqueued += 1
    if retry.dry_run:
        return []
    enqueued = _enqueue(
        session,
        repush,
        request_seq=session.scalar(select(func.coalesce(Job.request_seq, Job.seq)).where(Job.id == push.job_id)),
        credentials=retry.credentials,
        parent=session.scalar(select(Job).where(Job.id == retried.jobs[0])) if retried.jobs else None,
        request_id=request_id,
    )
    retried.jobs.append(enqueued.job.id)
    retried.messages += enqueued.messages
    return [enqueued.job]


def retry_all(database: Database, retry: Retry) -> Iterator[BulkResult]:
    after: int | None = 0
    while after is not None:
        retried = retry_pushes(database, retry, after=after)
        yield retried
        after = retried.last


def repair_push(session: Session, push_id: str, digest: str) -> Enqueued | str:
    """Enqueue the push of a row whose last good image, `digest`, is missing; else return why it is not enqueued.

    A row whose latest push failed or is in progress is left to the caller who requested that push.
    """
    push, registry = _lock_push(session, push_id)
    if push.state != PushState.SUCCEEDED or push.last_success_digest != digest or push.missing_at is None:
        return "Its latest push failed, is in progress, or has brought the image back."
    repush = _check_repush(session, push, registry, has_credentials=False)
    if isinstance(repush, Skipped):
        return repush.reason
    return _enqueue(session, repush, request_seq=push.last_success_seq)


def _lock_push(session: Session, push_id: str) -> tuple[ImagePush, Registry | None]:
    """Lock the registry of a push and return the push row as it is then; None: the registry was deleted."""
    push = session.scalars(select(ImagePush).where(ImagePush.id == push_id)).one()
    registry = session.scalar(
        select(Registry).where(Registry.id == push.registry_id, Registry.deleted_at.is_(None)).with_for_update()
    )
    session.refresh(push)
    return push, registry


class _Repush(NamedTuple):
    algorithm: Algorithm
    version: Version
    build: Build
    registry: Registry


def _check_repush(
    session: Session, push: ImagePush, registry: Registry | None, *, has_credentials: bool
) -> _Repush | Skipped:
    version, algorithm = session.execute(
        select(Version, Algorithm)
        .join(Algorithm, Algorithm.id == Version.algorithm_id)
        .where(Version.id == push.version_id)
    ).one()
    build = image_build(session, version)
    skipped = partial(Skipped, algorithm.path, version.git_hash, push.registry_id)
    if algorithm.deleted_at is not None:
        return skipped("The algorithm was deleted.")
    if registry is None:
        return skipped("The registry was deleted.")
    if build is None:
        return skipped("The version has no succeeded build; compile it first.")
    # `registry_fingerprint` is kept after the job's credentials are deleted; it shows that the push had its own.
    own_fingerprint = session.scalar(select(Job.registry_fingerprint).where(Job.id == push.job_id))
    if not has_credentials and own_fingerprint is not None and not _has_credentials(session, registry, algorithm):
        return skipped(
            "The credentials of that push were not kept, and neither the registry nor a default has any for pushes. "
            "Send credentials with the retry."
        )
    return _Repush(algorithm, version, build, registry)


def _enqueue(
    session: Session,
    repush: _Repush,
    *,
    request_seq: int | None,
    credentials: Credentials | None = None,
    parent: Job | None = None,
    request_id: str | None = None,
) -> Enqueued:
    algorithm, version, build, registry = repush
    return enqueue_push(
        session, algorithm, version, build, PushRequest(registry.id, credentials),
        parent=parent, request_seq=request_seq, request_id=request_id,
    )  # fmt: skip


def _has_credentials(session: Session, registry: Registry, algorithm: Algorithm) -> bool:
    if registry.credentials is not None or registry.push_credentials is not None:
        return True
    return bool(defaults_with_credentials(session, registry.id, algorithm.owner, algorithm.id))
