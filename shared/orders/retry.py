"""Ordering again every push that was not done: one order each, so that what one registry refuses stops no other."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from shared.database import Database
from shared.jobs.nudges import JobMessage
from shared.models import ImagePush, Job, PushState, Version
from shared.orders.again import Unrepeatable, lock_row, repeatable
from shared.registry.credentials import Credentials

RETRIABLE = (PushState.FAILED, PushState.CANCELLED, PushState.STALLED)
MAX_AT_ONCE = 1000
"""Pushes that one call looks at; whoever has more asks again."""


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
    nudges: list[JobMessage] = field(default_factory=list)
    last: int | None = None
    """Where the next call goes on, where there are more than one takes."""


def retry_pushes(database: Database, retry: Retry, *, after: int = 0, request_id: str | None = None) -> Retried:
    """Order again the pushes that are in the given state, the oldest first, each in a transaction of its own.

    One whose state changes meanwhile is left alone: somebody else ordered it again. `after`: `last` of the call before.
    """
    retried = Retried()
    with database.reading() as session:
        query = _matching(retry).where(ImagePush.seq > after).order_by(ImagePush.seq).limit(MAX_AT_ONCE + 1)
        found = [row._tuple() for row in session.execute(query)]
    for _seq, push_id in found[:MAX_AT_ONCE]:
        with database.writing() as session:
            _retry_one(session, push_id, retry, retried, request_id)
    if len(found) > MAX_AT_ONCE:
        retried.last = found[MAX_AT_ONCE - 1][0]
    return retried


def _matching(retry: Retry) -> Select[tuple[int, str]]:
    query = select(ImagePush.seq, ImagePush.id).where(ImagePush.state == retry.status)
    if retry.registry_id is not None:
        query = query.where(ImagePush.registry_id == retry.registry_id)
    if retry.algorithm_id is not None:
        query = query.where(
            exists().where(Version.id == ImagePush.version_id, Version.algorithm_id == retry.algorithm_id)
        )
    return query


def _retry_one(session: Session, push_id: str, retry: Retry, retried: Retried, request_id: str | None) -> None:
    push, registry = lock_row(session, push_id)
    if push.state != retry.status:
        return
    found = repeatable(session, push, registry, retry.credentials)
    if isinstance(found, Unrepeatable):
        skipped = Skipped(found.algorithm.path, found.version.git_hash, push.registry_id, found.reason)
        retried.skipped.append(skipped)
        return
    parent = session.scalar(select(Job).where(Job.id == retried.jobs[0])) if retried.jobs else None
    asked = session.scalar(select(func.coalesce(Job.request_seq, Job.seq)).where(Job.id == push.job_id))
    ordered = found.order(session, retry.credentials, request_seq=asked, parent=parent, request_id=request_id)
    retried.jobs.append(ordered.job.id)
    retried.nudges += ordered.nudges


def retry_all(database: Database, retry: Retry) -> Iterator[Retried]:
    """Retry whatever there is, a call's worth at a time."""
    after: int | None = 0
    while after is not None:
        retried = retry_pushes(database, retry, after=after)
        yield retried
        after = retried.last
