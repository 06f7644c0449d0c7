"""Rows of worker processes (alive, queues, problem) and of periodic runs (when the sweep and its like ran last)."""

from collections.abc import Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.engine import insert_if_absent
from shared.db.models import PeriodicRun, WorkerProcess

SWEEP = "sweep"
RECONCILE = "reconcile"
DRIFT = "drift"
DELIVERY = "delivery"
UNCORDON = "uncordon"
MAX_SILENCE_MS = 60_000
"""A worker that did not refresh its row for so many milliseconds counts as dead."""
DEAD_ROW_MAX_AGE_MS = 3_600_000
"""A killed worker leaves its row, which other workers delete after so many milliseconds."""


def refresh_worker(session: Session, name: str, queues: Sequence[str], problem: str | None) -> None:
    """Write that a worker lives, which queues it consumes, and what keeps it from working (None: nothing)."""
    values = {"queues": f",{','.join(queues)},", "problem": problem, "seen_at": now_ms()}
    known = session.execute(
        update(WorkerProcess).where(WorkerProcess.name == name).values(values).returning(WorkerProcess.seq)
    )
    if known.first() is None:
        session.add(WorkerProcess(name=name, **values))


def remove_worker(session: Session, name: str) -> None:
    session.execute(delete(WorkerProcess).where(WorkerProcess.name == name))


def delete_dead_workers(session: Session) -> None:
    session.execute(delete(WorkerProcess).where(WorkerProcess.seen_at < now_ms() - DEAD_ROW_MAX_AGE_MS))


def live_workers(session: Session) -> list[WorkerProcess]:
    return list(
        session.scalars(
            select(WorkerProcess).where(WorkerProcess.seen_at > now_ms() - MAX_SILENCE_MS).order_by(WorkerProcess.seq)
        )
    )


def record_run(session: Session, name: str) -> None:
    if not insert_if_absent(session, PeriodicRun, ("name",), name=name, at=now_ms()):
        session.execute(update(PeriodicRun).where(PeriodicRun.name == name).values(at=now_ms()))


def ran_within(session: Session, name: str, seconds: float) -> bool:
    return (
        session.scalar(
            select(PeriodicRun.seq).where(PeriodicRun.name == name, PeriodicRun.at > now_ms() - int(seconds * 1000))
        )
        is not None
    )


def sweep_age_seconds(session: Session) -> int | None:
    """Return the seconds since the last sweep, or None when there was none."""
    age = session.scalar(select(now_ms() - PeriodicRun.at).where(PeriodicRun.name == SWEEP))
    return None if age is None else max(0, age // 1000)


def acquire_delivery_lease(session: Session, *, seconds: float) -> int | None:
    """Reserve the sending of webhook deliveries for so many seconds. Return the lease, or None when another has it."""
    insert_if_absent(session, PeriodicRun, ("name",), name=DELIVERY, at=0)
    return session.scalar(
        update(PeriodicRun)
        .where(PeriodicRun.name == DELIVERY, PeriodicRun.at < now_ms())
        .values(at=now_ms() + int(seconds * 1000))
        .returning(PeriodicRun.at)
        .execution_options(synchronize_session=False)
    )


def release_delivery_lease(session: Session, lease: int) -> None:
    """Release the lease, unless it expired and another worker has it by now."""
    session.execute(
        update(PeriodicRun)
        .where(PeriodicRun.name == DELIVERY, PeriodicRun.at == lease)
        .values(at=0)
        .execution_options(synchronize_session=False)
    )
