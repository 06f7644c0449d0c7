"""Worker nodes in the database: alive, on which queues, and what keeps them from working."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.models import WorkerProcess
from shared.pushes.stalls import WORKER_SILENCE_MS

FORGOTTEN_MS = 3_600_000
"""A node that was killed leaves its row; others clear it away after this long."""


def refresh_worker(session: Session, name: str, queues: Sequence[str], problem: str | None) -> None:
    """Say that a worker lives, which queues it consumes, and what keeps it from working (None: nothing)."""
    said = {"queues": f",{','.join(queues)},", "problem": problem, "seen_at": now_ms()}
    known = session.execute(update(WorkerProcess).where(WorkerProcess.name == name).values(said).returning(WorkerProcess.seq))
    if known.first() is None:
        session.add(WorkerProcess(name=name, **said))


def remove_worker(session: Session, name: str) -> None:
    """A worker stopped."""
    session.execute(delete(WorkerProcess).where(WorkerProcess.name == name))


def delete_dead_workers(session: Session) -> None:
    """Clear away the rows of workers that were killed long ago."""
    session.execute(delete(WorkerProcess).where(WorkerProcess.seen_at < now_ms() - FORGOTTEN_MS))


def live_workers(session: Session) -> list[WorkerProcess]:
    """The workers that were heard of lately, oldest first."""
    alive = select(WorkerProcess).where(WorkerProcess.seen_at > now_ms() - WORKER_SILENCE_MS)
    return list(session.scalars(alive.order_by(WorkerProcess.seq)))
