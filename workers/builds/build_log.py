"""The logs of builds: written behind the fence, and kept for an owner's newest builds."""

import threading

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from shared.db.models import Algorithm, Build, Job
from shared.fence import HELD, Claim, FenceLostError, held_by

REMOVED = "This log was removed: an owner's newest logs are kept (LONGSHORE_BUILD_LOGS_PER_OWNER).\n"
MAX_REMOVED = 100
"""Logs that one build removes, so that its transaction is short."""


def append_log(session: Session, claim: Claim, text: str) -> None:
    """Append to the build's log.

    Raises:
        FenceLostError: the job no longer belongs to this claim.
    """
    written = session.execute(
        update(Build)
        .where(Build.id == claim.build_id, exists(select(Job.id).where(HELD)))
        .values(log=Build.log + text)
        .returning(Build.id)
        .execution_options(synchronize_session=False),
        held_by(claim),
    )
    if written.first() is None:
        raise FenceLostError


def remove_old_logs(session: Session, owner: str, *, keep: int) -> None:
    """Remove the logs of ended builds of an owner but the newest `keep`, so that no owner fills the database.

    With the log goes the traceback of the load check.
    """
    builds = (
        select(Build.id)
        .join(Algorithm, Algorithm.id == Build.algorithm_id)
        .where(Algorithm.owner == owner, Build.finished_at.is_not(None))
        .order_by(Build.seq.desc())
        .offset(keep)
        .limit(MAX_REMOVED)
    )
    old = session.scalars(builds).all()
    session.execute(
        update(Build)
        .where(Build.id.in_(old), Build.log != "", Build.log != REMOVED)
        .values(log=REMOVED, load_check_traceback=None)
        .execution_options(synchronize_session=False)
    )


class LogBuffer:
    """Holds the lines of the log that are not in the row yet. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        with self._lock:
            self._lines.append(line + "\n")

    def unwritten(self) -> list[str]:
        with self._lock:
            return list(self._lines)

    def remove_written(self, count: int) -> None:
        """Remove the first `count` lines; after the transaction that wrote them was committed."""
        with self._lock:
            del self._lines[:count]
