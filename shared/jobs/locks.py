"""The one order in which rows are locked: algorithm, registries, version, jobs, then builds and push rows.

Whoever writes several of them begins in front, so that no two wait for each other in a circle (PostgreSQL would end
that by failing one of them). SQLite has one write lock, taken at BEGIN.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.jobs.claims import Claim, FenceLost, held
from shared.models import Job, Version


def lock_version(session: Session, version_id: str) -> None:
    """Hold the version against whoever adds jobs to it now, so that none is missed when its build ends."""
    session.execute(select(Version.id).where(Version.id == version_id).with_for_update())


def lock_version_of(session: Session, job_id: str) -> None:
    """The same for the version that a job is about."""
    version = select(Job.version_id).where(Job.id == job_id).scalar_subquery()
    session.execute(select(Version.id).where(Version.id == version).with_for_update())


def lock_claimed(session: Session, claim: Claim) -> None:
    """Hold a claimed job before what it is about is written.

    Raises:
        FenceLost: the job is not this claim's any more.
    """
    lock_version_of(session, claim.job_id)
    if session.scalar(select(Job.id).where(held(claim)).with_for_update()) is None:
        raise FenceLost("the job was ended or taken over")
