"""Periodic runs: an operator sees when the sweep ran last."""

import pytest
from sqlalchemy import update

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import PeriodicRun
from shared.jobs.worker_processes import SWEEP, record_run, sweep_age_seconds

pytestmark = pytest.mark.usefixtures("installation")


def age() -> int | None:
    with database().reading() as session:
        return sweep_age_seconds(session)


def sweep_marked() -> None:
    with database().writing() as session:
        record_run(session, SWEEP)


def test_the_age_of_the_last_sweep() -> None:
    assert age() is None
    sweep_marked()
    assert age() is not None
    with database().writing() as session:
        session.execute(update(PeriodicRun).values(at=now_ms() - 90_000))
    assert age() in (90, 91, 92)
    sweep_marked()
    assert age() in (0, 1, 2)
