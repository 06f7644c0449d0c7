"""Counts of events and pushes: tallied once, and exact at any time."""

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import func, select

from shared.commands.cancel import cancel_job
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import ImagePush, PushEvent, PushTally
from shared.errors import ErrorClass
from shared.pushes import queries
from shared.pushes.queries import count_events, count_pushes, tally_events
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import build_commit, end_badly, end_push, lose_lease, make_claim, make_registry, push

pytestmark = pytest.mark.usefixtures("installation")

HASHES = [f"{number:040x}" for number in range(1, 9)]


@pytest.fixture
def _small_tallies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tally even a few events, and new ones immediately."""
    monkeypatch.setattr(queries, "MIN_EVENTS_TO_TALLY", 1)
    monkeypatch.setattr(queries, "VISIBLE_AFTER_MS", -1_000)


def live_through_everything() -> None:
    """Make pushes that ended in every way, were requested again in every state, were retried, lost and superseded."""
    algorithm, registry = make_algorithm(), make_registry(max_pushes=100)
    builds = [build_commit(algorithm, git_hash) for git_hash in HASHES]
    end_push(make_claim(push(builds[0], registry)))
    end_push(make_claim(push(builds[0], registry)))
    end_badly(make_claim(push(builds[1], registry)))
    end_push(make_claim(push(builds[1], registry)))
    end_badly(make_claim(push(builds[2], registry)))
    end_badly(make_claim(push(builds[3], registry)), ErrorClass.TRANSIENT)
    push(builds[4], registry)
    push(builds[4], registry)
    cancelled = push(builds[5], registry)
    with database().writing() as session:
        cancel_job(session, cancelled)
    running = push(builds[6], registry)
    make_claim(running)
    lost = push(builds[7], registry)
    make_claim(lost, "worker/2")
    lose_lease(lost)
    end_badly(make_claim(lost, "worker/3"))


def counted_by_hand() -> tuple[Counter[Any], dict[Any, Any]]:
    with database().reading() as session:
        events = select(PushEvent.kind, PushEvent.state, func.count()).group_by(PushEvent.kind, PushEvent.state)
        states = select(ImagePush.state, func.count()).group_by(ImagePush.state)
        return (
            Counter({(kind, state): number for kind, state, number in session.execute(events)}),
            dict(row._tuple() for row in session.execute(states)),
        )


def counted() -> tuple[Counter[Any], dict[Any, Any]]:
    with database().reading() as session:
        events = count_events(session)
        return events, count_pushes(session, events)


def tally() -> None:
    with database().writing() as session:
        tally_events(session)


def test_what_is_counted_is_what_the_rows_say() -> None:
    live_through_everything()
    assert counted() == counted_by_hand()
    assert counted()[1] == {"succeeded": 2, "failed": 2, "cancelled": 1, "queued": 2, "in-progress": 1}


@pytest.mark.usefixtures("_small_tallies")
def test_a_tally_changes_no_count_and_neither_does_what_comes_after_it() -> None:
    live_through_everything()
    tally()
    assert counted() == counted_by_hand()
    live_through_everything()
    assert counted() == counted_by_hand()
    tally()
    assert counted() == counted_by_hand()


@pytest.mark.usefixtures("_small_tallies")
def test_tallies_at_once_count_once() -> None:
    live_through_everything()
    run_concurrently(tally, tally, tally)
    assert counted() == counted_by_hand()


def test_what_may_still_be_in_a_transaction_is_not_tallied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MIN_EVENTS_TO_TALLY", 1)
    live_through_everything()
    tally()
    with database().reading() as session:
        assert session.scalar(select(PushTally.number)) == 0, "every event is younger than ten minutes"
        assert session.scalars(select(now_ms())).one() > queries.VISIBLE_AFTER_MS
    assert counted() == counted_by_hand()
