"""Worker nodes in the database: alive, on which queues, and what keeps them from working.

Marks: when the sweep and its like ran last, which an operator can see; and whose turn it is to send deliveries.
"""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import PeriodicRun, WorkerProcess
from shared.db.upsert import insert_if_absent
from shared.pushes.stalls import WORKER_SILENCE_MS

FORGOTTEN_MS = 3_600_000
"""A node that was killed leaves its row; others clear it away after this long."""


def refresh_worker(session: Session, name: str, queues: Sequence[str], problem: str | None) -> None:
    """Say that a worker lives, which queues it consumes, and what keeps it from working (None: nothing)."""
    said = {"queues": f",{','.join(queues)},", "problem": problem, "seen_at": now_ms()}
    known = session.execute(
        update(WorkerProcess).where(WorkerProcess.name == name).values(said).returning(WorkerProcess.seq)
    )
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


SWEEP = "sweep"
RECONCILE = "reconcile"
DRIFT = "drift"
DELIVERY = "delivery"
UNCORDON = "uncordon"


def record_run(session: Session, name: str) -> None:
    """It has run."""
    if not insert_if_absent(session, PeriodicRun, ("name",), name=name, at=now_ms()):
        session.execute(update(PeriodicRun).where(PeriodicRun.name == name).values(at=now_ms()))


def ran_within(session: Session, name: str, seconds: float) -> bool:
    """Whether it has ended a run in the last so many seconds."""
    last = select(PeriodicRun.seq).where(PeriodicRun.name == name, PeriodicRun.at > now_ms() - int(seconds * 1000))
    return session.scalar(last) is not None


def sweep_age_seconds(session: Session) -> int | None:
    """How long ago the sweep ran last, in seconds; None: never."""
    age = session.scalar(select(now_ms() - PeriodicRun.at).where(PeriodicRun.name == SWEEP))
    return None if age is None else max(0, age // 1000)


def acquire_delivery_turn(session: Session, *, seconds: float) -> int | None:
    """Be the one who sends deliveries, for so long at most; the turn's number, None: it is somebody else's."""
    insert_if_absent(session, PeriodicRun, ("name",), name=DELIVERY, at=0)
    return session.scalar(
        update(PeriodicRun)
        .where(PeriodicRun.name == DELIVERY, PeriodicRun.at < now_ms())
        .values(at=now_ms() + int(seconds * 1000))
        .returning(PeriodicRun.at)
        .execution_options(synchronize_session=False)
    )


def release_delivery_turn(session: Session, turn: int) -> None:
    """Let the next one send, unless the turn was over and is somebody else's by now."""
    session.execute(
        update(PeriodicRun)
        .where(PeriodicRun.name == DELIVERY, PeriodicRun.at == turn)
        .values(at=0)
        .execution_options(synchronize_session=False)
    )
