"""Queries of dashboards and scripts: the pushes of a version, and exact counts of pushes and their events.

The history of events only grows. Its beginning is counted once and kept in `push_tallies`; each request counts only the
events after that. So writers of events never update a shared counter row.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, bindparam, func, literal, select, update
from sqlalchemy.orm import Session

from shared.algorithms import HASH_HAS_PREFIX, HASH_PREFIX, hash_range
from shared.db.clock import now_ms
from shared.db.engine import Database, insert_if_absent
from shared.db.models import Algorithm, ImagePush, PushEvent, PushState, PushTally, Version

_PUSHES = (
    select(*ImagePush.__table__.c, Algorithm.owner.label("owner"), Algorithm.name.label("name"))
    .join_from(Algorithm, Version, Version.algorithm_id == Algorithm.id)
    .join(ImagePush, ImagePush.version_id == Version.id)
    .where(Algorithm.deleted_at.is_(None), HASH_HAS_PREFIX)
    .order_by(ImagePush.seq)
)
_BY_NAME: Select[Any] = _PUSHES.where(Algorithm.owner == bindparam("owner"), Algorithm.name == bindparam("name"))
_BY_ID: Select[Any] = _PUSHES.where(Algorithm.id == bindparam("id"))
LIVE_STATES = (PushState.QUEUED, PushState.IN_PROGRESS, PushState.STALLED)
MIN_EVENTS_TO_TALLY = 10_000
"""So many events are counted for each request without a noticeable delay."""
VISIBLE_AFTER_MS = 600_000
"""All transactions can see an event of this age, and all events before it: transactions are short (rule 6)."""
POSITION_KIND = ""
"""Kind of the tally whose number is the `seq` of the last tallied event."""

Counts = Counter[tuple[str, str]]

_TALLIES = select(PushTally.kind, PushTally.state, PushTally.number)
_LATER_EVENTS = (
    select(PushEvent.kind, PushEvent.state, func.count(PushEvent.seq))
    .where(PushEvent.seq > bindparam("position"))
    .group_by(PushEvent.kind, PushEvent.state)
)
_LIVE_PUSHES = (
    select(ImagePush.state, func.count(ImagePush.seq)).where(ImagePush.state.in_(LIVE_STATES)).group_by(ImagePush.state)
)


def pushes_of_version(database: Database, algorithm: str, git_hash: str) -> Sequence[Row[Any]]:
    """Return the push rows of a version, in the order of requests, each with `owner` and `name` of its algorithm.

    `algorithm` is OWNER/NAME or an id; `git_hash` may be a prefix. Return no row if they do not identify exactly one
    version; `shared.algorithms` finds the reason.
    """
    git_hash = git_hash.lower()
    if not HASH_PREFIX.fullmatch(git_hash):
        return []
    owner, slash, name = algorithm.partition("/")
    rows = (
        database.ask(_BY_NAME, owner=owner, name=name, **hash_range(git_hash))
        if slash
        else database.ask(_BY_ID, id=algorithm.lower(), **hash_range(git_hash))
    )
    return rows if len({row.version_id for row in rows}) == 1 else []


def count_events(session: Session) -> Counts:
    # The position is read in one statement with the tallies, so that a tally in between cannot count events twice. It
    # is passed to the next statement as a number, from which the database knows that few events are left to count.
    tallies = {(kind, state): number for kind, state, number in session.execute(_TALLIES)}
    position = tallies.pop((POSITION_KIND, ""), 0)
    counts = Counts(tallies)
    for kind, state, number in session.execute(_LATER_EVENTS, {"position": position}):
        counts[kind, state] += number
    return counts


def count_pushes(session: Session, events: Counts) -> dict[str, int]:
    """Return the number of pushes by state: live ones from their rows, ended ones from the history.

    A push that ends has an `ended` event. It leaves that state only by a new request, which is an `overwritten` event.
    """
    counts = {str(state): number for state, number in session.execute(_LIVE_PUSHES)}
    for state in PushState:
        if state not in LIVE_STATES:
            counts[state] = events["ended", state] - events["overwritten", state]
    return {state: number for state, number in counts.items() if number > 0}


def tally_events(session: Session) -> None:
    """Tally the newer events if there are enough of them. Concurrent calls wait for each other and count once."""
    insert_if_absent(session, PushTally, ("kind", "state"), kind=POSITION_KIND, state="", number=0)
    position = session.scalars(select(PushTally.number).where(PushTally.kind == POSITION_KIND).with_for_update()).one()
    newest = session.scalar(select(func.max(PushEvent.seq))) or 0
    if newest - position < MIN_EVENTS_TO_TALLY:
        return
    last_visible = session.scalar(
        select(PushEvent.seq)
        .where(PushEvent.seq > position, PushEvent.created_at < now_ms() - VISIBLE_AFTER_MS)
        .order_by(PushEvent.seq.desc())
        .limit(1)
    )
    if last_visible is None:
        return
    counts = session.execute(
        select(PushEvent.kind, PushEvent.state, func.count(PushEvent.seq))
        .where(PushEvent.seq > position, PushEvent.seq <= last_visible)
        .group_by(PushEvent.kind, PushEvent.state)
    ).all()
    for kind, state, number in counts:
        if not insert_if_absent(session, PushTally, ("kind", "state"), kind=kind, state=state, number=number):
            _set_tally(session, kind, state, PushTally.number + literal(number))
    _set_tally(session, POSITION_KIND, "", literal(last_visible))


def _set_tally(session: Session, kind: str, state: str, number: object) -> None:
    session.execute(
        update(PushTally)
        .where(PushTally.kind == kind, PushTally.state == state)
        .values(number=number)
        .execution_options(synchronize_session=False)
    )
