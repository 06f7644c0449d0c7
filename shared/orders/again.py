"""Ordering the push of a row once more, by whoever repeats it: a retry, or the repair of what is missing.

A push that is ordered again keeps its place in the order of asking: which good push is the latest, and so where
executions pull from, is what callers decided, and no repair changes it.
"""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.algorithms import image_build
from shared.models import Algorithm, Build, ImagePush, Job, Registry, Version
from shared.orders.ordered import Enqueued
from shared.orders.push import PushRequest, enqueue_push
from shared.registry.credentials import Credentials


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
