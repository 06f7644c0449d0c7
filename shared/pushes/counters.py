"""How many events the history of pushes holds, without counting millions of rows at every look.

The history only grows, so it is counted once up to a number (`push_tallies`), and from there on at each look: what is
told is exact at any moment, and nobody who writes events has to touch a counter that others write too.
"""

from collections import Counter

from sqlalchemy import bindparam, func, literal, select, update
from sqlalchemy.orm import Session

from shared.db.clock import now_ms
from shared.db.models import ImagePush, PushEvent, PushState, PushTally
from shared.db.upsert import insert_if_absent

LIVE = (PushState.QUEUED, PushState.IN_PROGRESS, PushState.STALLED)
WORTH_TALLYING = 10_000
"""So many events are counted at each look without anybody noticing."""
SETTLED_MS = 600_000
"""An event this old is seen by everybody, and so is every one with a lower number: transactions are short (rule 6)."""
UP_TO_WHERE = ""

Counts = Counter[tuple[str, str]]


def count_events(session: Session) -> Counts:
    """How many events there are of each kind and state."""
    # How far is tallied is read together with the tallies, so that one in between is not seen twice; and it is told to
    # the database as a number, which then knows how few events are left to count.
    tallied = {(kind, state): number for kind, state, number in session.execute(_TALLIES)}
    counts = Counts({key: number for key, number in tallied.items() if key[0] != UP_TO_WHERE})
    for kind, state, number in session.execute(_LATER, {"up_to": tallied.get((UP_TO_WHERE, ""), 0)}):
        counts[kind, state] += number
    return counts


_TALLIES = select(PushTally.kind, PushTally.state, PushTally.number)
_LATER = (
    select(PushEvent.kind, PushEvent.state, func.count(PushEvent.seq))
    .where(PushEvent.seq > bindparam("up_to"))
    .group_by(PushEvent.kind, PushEvent.state)
)


def count_pushes(session: Session, events: Counts) -> dict[str, int]:
    """How many pushes are in each state: live ones by their rows, ended ones by what their history says.

    An ended push has said so (`ended`), and leaves that state only when it is ordered again (`overwritten`).
    """
    counts = {str(state): number for state, number in session.execute(_LIVE_PUSHES)}
    for state in PushState:
        if state not in LIVE:
            counts[state] = events["ended", state] - events["overwritten", state]
    return {state: number for state, number in counts.items() if number > 0}


_LIVE_PUSHES = (
    select(ImagePush.state, func.count(ImagePush.seq)).where(ImagePush.state.in_(LIVE)).group_by(ImagePush.state)
)


def tally_events(session: Session) -> None:
    """Count what the history has grown by, once that is worth it. Two at once wait for each other and count once."""
    insert_if_absent(session, PushTally, ("kind", "state"), kind=UP_TO_WHERE, state="", number=0)
    counted = session.scalars(select(PushTally.number).where(PushTally.kind == UP_TO_WHERE).with_for_update()).one()
    newest = session.scalar(select(func.max(PushEvent.seq))) or 0
    if newest - counted < WORTH_TALLYING:
        return
    settled = session.scalar(
        select(PushEvent.seq)
        .where(PushEvent.seq > counted, PushEvent.created_at < now_ms() - SETTLED_MS)
        .order_by(PushEvent.seq.desc())
        .limit(1)
    )
    if settled is None:
        return
    grown = session.execute(
        select(PushEvent.kind, PushEvent.state, func.count(PushEvent.seq))
        .where(PushEvent.seq > counted, PushEvent.seq <= settled)
        .group_by(PushEvent.kind, PushEvent.state)
    ).all()
    for kind, state, number in grown:
        if not insert_if_absent(session, PushTally, ("kind", "state"), kind=kind, state=state, number=number):
            _raise(session, kind, state, PushTally.number + literal(number))
    _raise(session, UP_TO_WHERE, "", literal(settled))


def _raise(session: Session, kind: str, state: str, number: object) -> None:
    session.execute(
        update(PushTally)
        .where(PushTally.kind == kind, PushTally.state == state)
        .values(number=number)
        .execution_options(synchronize_session=False)
    )
