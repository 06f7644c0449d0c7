"""Ordering the push of a row once more, by whoever repeats it: a retry, or the repair of what is missing.

A push that is ordered again keeps its place in the order of asking: which good push is the latest, and so where
executions pull from, is what callers decided, and no repair changes it.

Ordering again every push that was not done: one order each, so that what one registry refuses stops no other.

Pushing again what a registry does not have any more.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, bindparam, exists, func, select
from sqlalchemy.orm import Session

from shared.algorithms import image_build
from shared.commands.push import Enqueued, PushRequest, enqueue_push
from shared.db.engine import Database
from shared.db.models import Algorithm, Build, ImagePush, Job, PushState, Registry, Version
from shared.fence import lock_version
from shared.jobs.dispatch import JobMessage
from shared.registry.credentials import Credentials

_LOCKED_REGISTRY = select(Registry.id).where(Registry.id == bindparam("registry")).with_for_update()


@dataclass(frozen=True)
class Repeatable:
    """A push that can be ordered again."""

    algorithm: Algorithm
    version: Version
    build: Build
    registry: Registry

    def order(
        self,
        session: Session,
        credentials: Credentials | None,
        *,
        request_seq: int | None,
        parent: Job | None = None,
        request_id: str | None = None,
    ) -> Enqueued:
        """Order it, in the place that it had in the order of asking."""
        order = PushRequest(self.registry.id, credentials)
        return enqueue_push(
            session, self.algorithm, self.version, self.build, order, parent=parent, request_seq=request_seq,
            request_id=request_id,
        )  # fmt: skip


@dataclass(frozen=True)
class Unrepeatable:
    """A push that cannot be ordered again, and why."""

    algorithm: Algorithm
    version: Version
    reason: str


def lock_row(session: Session, push_id: str) -> tuple[ImagePush, Registry | None]:
    """A push row as it is once its registry is locked, as every order locks it; None: that was deleted."""
    push = session.scalars(select(ImagePush).where(ImagePush.id == push_id)).one()
    registry = session.scalar(
        select(Registry).where(Registry.id == push.registry_id, Registry.deleted_at.is_(None)).with_for_update()
    )
    session.refresh(push)
    return push, registry


def repeatable(
    session: Session, push: ImagePush, registry: Registry | None, credentials: Credentials | None
) -> Repeatable | Unrepeatable:
    """Whether the push of a row can be ordered again, with these credentials or the registry's own."""
    version, algorithm = session.execute(
        select(Version, Algorithm)
        .join(Algorithm, Algorithm.id == Version.algorithm_id)
        .where(Version.id == push.version_id)
    ).one()
    build = image_build(session, version)
    if algorithm.deleted_at is not None:
        return Unrepeatable(algorithm, version, "The algorithm was deleted.")
    if registry is None:
        return Unrepeatable(algorithm, version, "The registry was deleted.")
    if build is None:
        return Unrepeatable(algorithm, version, "The version has no succeeded build; compile it first.")
    if credentials is None and registry.credentials is None and _brought_its_own(session, push):
        reason = "It was pushed with credentials of its own, which are not kept, and the registry has none: give some."
        return Unrepeatable(algorithm, version, reason)
    return Repeatable(algorithm, version, build, registry)


def _brought_its_own(session: Session, push: ImagePush) -> bool:
    # What its credentials were bound to stays when they are deleted.
    return session.scalar(select(Job.registry_fingerprint).where(Job.id == push.job_id)) is not None


RETRIABLE = (PushState.FAILED, PushState.CANCELLED, PushState.STALLED)
MAX_AT_ONCE = 1000
"""Pushes that one call looks at; a caller with more sends another one."""
MAX_IN_TRANSACTION = 100
"""Pushes enqueued in one transaction, which locks their registries: other pushes to these wait meanwhile."""


@dataclass(frozen=True)
class Retry:
    """Which pushes are ordered again, and with what."""

    status: PushState = PushState.FAILED
    registry_id: str | None = None
    algorithm_id: str | None = None
    credentials: Credentials | None = None
    """For all of them, which then are to one registry; none: the registry's own."""


@dataclass
class Skipped:
    """A push that was not ordered again, and why."""

    algorithm: str
    git_hash: str
    registry_id: str
    reason: str


@dataclass
class Retried:
    """What a retry did."""

    jobs: list[str] = field(default_factory=list)
    """The ids of the new jobs; the first is the parent of the others."""
    skipped: list[Skipped] = field(default_factory=list)
    messages: list[JobMessage] = field(default_factory=list)
    last: int | None = None
    """Where the next call goes on, where there are more than one takes."""


def retry_pushes(
    database: Database,
    retry: Retry,
    *,
    after: int = 0,
    request_id: str | None = None,
    record: Callable[[Session, Sequence[Job]], None] | None = None,
) -> Retried:
    """Enqueue again the pushes that are in the given state, the oldest first, up to 100 in one transaction.

    A push whose state changes meanwhile is left alone, because another request enqueued it. `after`: `last` of the
    previous call. `record` is called in each transaction that enqueued pushes, with their jobs: what it writes is
    committed with them, or not at all.
    """
    retried = Retried()
    with database.reading() as session:
        query = _matching(retry).where(ImagePush.seq > after).order_by(ImagePush.seq).limit(MAX_AT_ONCE + 1)
        rows = session.execute(query).all()
    for start in range(0, min(len(rows), MAX_AT_ONCE), MAX_IN_TRANSACTION):
        step = rows[start : min(start + MAX_IN_TRANSACTION, MAX_AT_ONCE)]
        with database.writing() as session:
            # As everywhere: registries before versions, each in one order (`shared.fence`).
            for registry_id in sorted({row.registry_id for row in step}):
                session.execute(_LOCKED_REGISTRY, {"registry": registry_id})
            for version_id in sorted({row.version_id for row in step}):
                lock_version(session, version_id)
            jobs: list[Job] = []
            for row in step:
                jobs += _retry_one(session, row.id, retry, retried, request_id)
            if jobs and record is not None:
                record(session, jobs)
    if len(rows) > MAX_AT_ONCE:
        retried.last = rows[MAX_AT_ONCE - 1].seq
    return retried


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


def _retry_one(session: Session, push_id: str, retry: Retry, retried: Retried, request_id: str | None) -> list[Job]:
    push, registry = lock_row(session, push_id)
    if push.state != retry.status:
        return []
    found = repeatable(session, push, registry, retry.credentials)
    if isinstance(found, Unrepeatable):
        skipped = Skipped(found.algorithm.path, found.version.git_hash, push.registry_id, found.reason)
        retried.skipped.append(skipped)
        return []
    parent = session.scalar(select(Job).where(Job.id == retried.jobs[0])) if retried.jobs else None
    asked = session.scalar(select(func.coalesce(Job.request_seq, Job.seq)).where(Job.id == push.job_id))
    ordered = found.order(session, retry.credentials, request_seq=asked, parent=parent, request_id=request_id)
    retried.jobs.append(ordered.job.id)
    retried.messages += ordered.messages
    return [ordered.job]


def retry_all(database: Database, retry: Retry) -> Iterator[Retried]:
    """Retry whatever there is, a call's worth at a time."""
    after: int | None = 0
    while after is not None:
        retried = retry_pushes(database, retry, after=after)
        yield retried
        after = retried.last


def repair_push(session: Session, push_id: str, digest: str) -> Enqueued | str:
    """Order the push of a row whose last good image, `digest`, is missing; else why it is not ordered.

    One whose latest push failed, or is under way, is left to whoever asked for that.
    """
    push, registry = lock_row(session, push_id)
    if push.state != PushState.SUCCEEDED or push.last_success_digest != digest or push.missing_at is None:
        return "Its latest push is another one's business: it failed, is under way, or brought the image back."
    found = repeatable(session, push, registry, None)
    if isinstance(found, Unrepeatable):
        return found.reason
    return found.order(session, None, request_seq=push.last_success_seq)
