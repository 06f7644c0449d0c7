"""Ordering again every push that was not done: one order each, so that what one registry refuses stops no other.

A push that is ordered again keeps its place in the order of asking: which good push is the latest, and so where
executions pull from, is what callers decided, and no repair changes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from shared.algorithms import image_build
from shared.database import Database
from shared.jobs.nudges import Nudge
from shared.models import Algorithm, ImagePush, Job, PushState, Registry, Version
from shared.orders.push import PushOrder, order_push
from shared.registry.credentials import Credentials

RETRIABLE = (PushState.FAILED, PushState.CANCELLED, PushState.STALLED)
MOST_AT_ONCE = 1000
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
    nudges: list[Nudge] = field(default_factory=list)
    last: int | None = None
    """Where the next call goes on, where there are more than one takes."""


def retry_pushes(database: Database, retry: Retry, *, after: int = 0, request_id: str | None = None) -> Retried:
    """Order again the pushes that are in the given state, the oldest first, each in a transaction of its own.

    One whose state changes meanwhile is left alone: somebody else ordered it again. `after`: `last` of the call before.
    """
    retried = Retried()
    with database.reading() as session:
        query = _matching(retry).where(ImagePush.seq > after).order_by(ImagePush.seq).limit(MOST_AT_ONCE + 1)
        found = [row._tuple() for row in session.execute(query)]
    for _seq, push_id in found[:MOST_AT_ONCE]:
        with database.writing() as session:
            _retry_one(session, push_id, retry, retried, request_id)
    if len(found) > MOST_AT_ONCE:
        retried.last = found[MOST_AT_ONCE - 1][0]
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
    push, version, algorithm = session.execute(
        select(ImagePush, Version, Algorithm)
        .join(Version, Version.id == ImagePush.version_id)
        .join(Algorithm, Algorithm.id == Version.algorithm_id)
        .where(ImagePush.id == push_id)
    ).one()
    # Locked as every order locks it, before the state is looked at again.
    registry = session.scalar(
        select(Registry).where(Registry.id == push.registry_id, Registry.deleted_at.is_(None)).with_for_update()
    )
    session.refresh(push)
    if push.state != retry.status:
        return
    build = image_build(session, version)
    if algorithm.deleted_at is not None:
        reason = "The algorithm was deleted."
    elif registry is None:
        reason = "The registry was deleted."
    elif build is None:
        reason = "The version has no succeeded build; compile it first."
    elif retry.credentials is None and registry.credentials is None and _brought_its_own(session, push):
        reason = "It was pushed with credentials of its own, which are not kept, and the registry has none: give some."
    else:
        parent = session.scalar(select(Job).where(Job.id == retried.jobs[0])) if retried.jobs else None
        order = PushOrder(registry.id, retry.credentials)
        asked = session.scalar(select(func.coalesce(Job.asked_order, Job.seq)).where(Job.id == push.job_id))
        ordered = order_push(
            session, algorithm, version, build, order, parent=parent, asked_order=asked, request_id=request_id
        )
        retried.jobs.append(ordered.job.id)
        retried.nudges += ordered.nudges
        return
    retried.skipped.append(Skipped(algorithm.path, version.git_hash, push.registry_id, reason))


def _brought_its_own(session: Session, push: ImagePush) -> bool:
    # What its credentials were bound to stays when they are deleted.
    return session.scalar(select(Job.registry_fingerprint).where(Job.id == push.job_id)) is not None


def retry_all(database: Database, retry: Retry) -> Iterator[Retried]:
    """Retry whatever there is, a call's worth at a time."""
    after: int | None = 0
    while after is not None:
        retried = retry_pushes(database, retry, after=after)
        yield retried
        after = retried.last
