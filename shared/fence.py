"""The fence of a job: the claim that every write of a worker repeats (rule 2), and the order in which rows are locked.

Rows are locked in one order everywhere: algorithm, registries, version, jobs, then builds and push rows. A
transaction that writes several of them starts with the first one that it needs, so that two transactions never wait
for each other (PostgreSQL would end such a deadlock by failing one of them). SQLite has one write lock, taken at BEGIN.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import Session

from shared.db.models import Job, JobState, Version
from shared.errors import WorkCancelledError

HELD = and_(Job.id == bindparam("held_job"), Job.claim == bindparam("held_claim"), Job.state == JobState.RUNNING)
"""The condition that every write under a claim repeats; `held_by` has its values."""
_VERSION = select(Version.id).where(Version.id == bindparam("version")).with_for_update()
_VERSION_OF_JOB = (
    select(Version.id)
    .where(Version.id == select(Job.version_id).where(Job.id == bindparam("job")).scalar_subquery())
    .with_for_update()
)
_CLAIMED = select(Job.id).where(HELD).with_for_update()


class FenceLostError(WorkCancelledError):
    """Raised when a newer claim or push owns the job, or it has ended. The work stops and writes nothing more."""

    def __init__(self, message: str = "the job was ended or taken over") -> None:
        super().__init__(message)


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job, until a newer claim, the job's end, or the end of the lease."""

    job_id: str
    number: int
    """The fence: every write repeats it."""
    owner: str
    push_id: str | None = None
    generation: int = 0
    build_id: str | None = None
    registry_id: str | None = None
    own_credentials: bool = False
    """Whether a push has credentials of its own: given for it, or those of a default."""


def held_by(claim: Claim) -> dict[str, Any]:
    return {"held_job": claim.job_id, "held_claim": claim.number}


def lock_version(session: Session, version_id: str) -> None:
    """Lock a version, so that no job is added to it while its build ends."""
    if _locks_rows(session):
        session.execute(_VERSION, {"version": version_id})


def lock_version_of(session: Session, job_id: str) -> None:
    if _locks_rows(session):
        session.execute(_VERSION_OF_JOB, {"job": job_id})


def _locks_rows(session: Session) -> bool:
    return session.get_bind().dialect.name != "sqlite"  # which locks the whole database at BEGIN


def lock_claimed(session: Session, claim: Claim) -> None:
    """Lock a claimed job before its build or push row is written.

    Raises:
        FenceLostError: the job no longer belongs to this claim.
    """
    lock_version_of(session, claim.job_id)
    if session.scalar(_CLAIMED, held_by(claim)) is None:
        raise FenceLostError
