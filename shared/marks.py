"""When the sweep ran last: an operator must be able to see that the watchman is awake."""

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from shared.clock import now_ms
from shared.inserting import insert_unless_there
from shared.models import Mark

SWEEP = "sweep"


def mark_sweep(session: Session) -> None:
    """The sweep has run."""
    if not insert_unless_there(session, Mark, ("name",), name=SWEEP, at=now_ms()):
        session.execute(update(Mark).where(Mark.name == SWEEP).values(at=now_ms()))


def seconds_since_sweep(session: Session) -> int | None:
    """How long ago the sweep ran last, in seconds; None: never."""
    age = session.scalar(select(now_ms() - Mark.at).where(Mark.name == SWEEP))
    return None if age is None else max(0, age // 1000)
