"""Marks: when the sweep and its like ran last, which an operator can see; and whose turn it is to send deliveries."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.inserting import insert_unless_there
from shared.models import PeriodicRun

SWEEP = "sweep"
RECONCILE = "tending"
DRIFT = "drift"
DELIVERY = "delivery"
RELEASE = "release"


def record_run(session: Session, name: str) -> None:
    """It has run."""
    if not insert_unless_there(session, PeriodicRun, ("name",), name=name, at=now_ms()):
        session.execute(update(PeriodicRun).where(PeriodicRun.name == name).values(at=now_ms()))


def ran_within(session: Session, name: str, seconds: float) -> bool:
    """Whether it has ended a run in the last so many seconds."""
    last = select(PeriodicRun.seq).where(PeriodicRun.name == name, PeriodicRun.at > now_ms() - int(seconds * 1000))
    return session.scalar(last) is not None


def seconds_since_sweep(session: Session) -> int | None:
    """How long ago the sweep ran last, in seconds; None: never."""
    age = session.scalar(select(now_ms() - PeriodicRun.at).where(PeriodicRun.name == SWEEP))
    return None if age is None else max(0, age // 1000)


def acquire_delivery_turn(session: Session, *, seconds: float) -> int | None:
    """Be the one who sends deliveries, for so long at most; the turn's number, None: it is somebody else's."""
    insert_unless_there(session, PeriodicRun, ("name",), name=DELIVERY, at=0)
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
