"""The one order in which rows are locked: algorithm, registries, version, jobs, then builds and push rows.

Whoever writes several of them begins in front, so that no two wait for each other in a circle (PostgreSQL would end
that by failing one of them). SQLite has one write lock, taken at BEGIN.
"""

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from shared.db.models import Job, Version
from shared.jobs.leases import HELD, Claim, FenceLostError, held_by


def lock_version(session: Session, version_id: str) -> None:
    """Hold the version against whoever adds jobs to it now, so that none is missed when its build ends."""
    if _locks_rows(session):
        session.execute(_VERSION, {"version": version_id})


_VERSION = select(Version.id).where(Version.id == bindparam("version")).with_for_update()


def lock_version_of(session: Session, job_id: str) -> None:
    """The same for the version that a job is about."""
    if _locks_rows(session):
        session.execute(_VERSION_OF_JOB, {"job": job_id})


_VERSION_OF_JOB = (
    select(Version.id)
    .where(Version.id == select(Job.version_id).where(Job.id == bindparam("job")).scalar_subquery())
    .with_for_update()
)


def _locks_rows(session: Session) -> bool:
    """SQLite does not: whoever writes has all of it to himself since BEGIN."""
    return session.get_bind().dialect.name != "sqlite"


def lock_claimed(session: Session, claim: Claim) -> None:
    """Hold a claimed job before what it is about is written.

    Raises:
        FenceLostError: the job is not this claim's any more.
    """
    lock_version_of(session, claim.job_id)
    if session.scalar(_CLAIMED, held_by(claim)) is None:
        raise FenceLostError("the job was ended or taken over")


_CLAIMED = select(Job.id).where(HELD).with_for_update()
