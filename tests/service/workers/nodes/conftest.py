"""Enqueue and run refreshes on a fake node pool."""

from typing import Any

import pytest

from shared.commands.refresh import enqueue_refresh
from shared.db.engine import database
from shared.db.models import Job, Refresh
from shared.refreshes import RefreshOptions, RefreshStep, read_steps
from tests.rows import one_row
from tests.service.workers.nodes.fake_node_pool import FakeNodePool
from workers.nodes import refresh


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> FakeNodePool:
    """The fake pool that `node_pool` returns."""
    fake = FakeNodePool()
    monkeypatch.setattr(refresh, "node_pool", lambda: fake)
    return fake


def enqueued(**options: Any) -> Job:
    """Enqueue a refresh."""
    with database().writing() as session:
        return enqueue_refresh(session, RefreshOptions(**options), owner="admin").job


def steps_of(job: Job) -> list[RefreshStep]:
    """Return its steps from the database."""
    return read_steps(one_row(Refresh, job_id=job.id).progress)


def states_of(job: Job) -> dict[str, str]:
    """Return the states of its steps, by node."""
    return {step.name: step.state.value for step in steps_of(job)}
