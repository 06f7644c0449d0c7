"""Marks: when the sweep and its like ran last, which an operator can see; and whose turn it is to send deliveries."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.inserting import insert_unless_there
from shared.models import Mark

SWEEP = "sweep"
TENDING = "tending"
DRIFT = "drift"
DELIVERY = "delivery"
RELEASE = "release"


def mark_done(session: Session, name: str) -> None:
    """It has run."""
    if not insert_unless_there(session, Mark, ("name",), name=name, at=now_ms()):
        session.execute(update(Mark).where(Mark.name == name).values(at=now_ms()))


def done_within(session: Session, name: str, seconds: float) -> bool:
    """Whether it has ended a run in the last so many seconds."""
    last = select(Mark.seq).where(Mark.name == name, Mark.at > now_ms() - int(seconds * 1000))
    return session.scalar(last) is not None


def seconds_since_sweep(session: Session) -> int | None:
    """How long ago the sweep ran last, in seconds; None: never."""
    age = session.scalar(select(now_ms() - Mark.at).where(Mark.name == SWEEP))
    return None if age is None else max(0, age // 1000)


def take_delivery_turn(session: Session, *, seconds: float) -> int | None:
    """Be the one who sends deliveries, for so long at most; the turn's number, None: it is somebody else's."""
    insert_unless_there(session, Mark, ("name",), name=DELIVERY, at=0)
    return session.scalar(
        update(Mark)
        .where(Mark.name == DELIVERY, Mark.at < now_ms())
        .values(at=now_ms() + int(seconds * 1000))
        .returning(Mark.at)
        .execution_options(synchronize_session=False)
    )


def end_delivery_turn(session: Session, turn: int) -> None:
    """Let the next one send, unless the turn was over and is somebody else's by now."""
    session.execute(
        update(Mark)
        .where(Mark.name == DELIVERY, Mark.at == turn)
        .values(at=0)
        .execution_options(synchronize_session=False)
    )
