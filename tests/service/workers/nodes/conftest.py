"""Refreshes that are ordered and worked on, with a fake nodes in the place of the cluster's nodes."""

from typing import Any

import pytest

from shared.commands.refresh import enqueue_refresh
from shared.db.engine import database
from shared.db.models import Job, Refresh
from shared.refreshes import RefreshOptions, RefreshStep, read_steps
from tests.rows import the
from tests.service.workers.nodes.fake_node_pool import FakeNodePool
from workers.nodes import refresh


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> FakeNodePool:
    """The fake nodes, as what `chosen` gives."""
    fake = FakeNodePool()
    monkeypatch.setattr(refresh, "node_pool", lambda: fake)
    return fake


def ordered(**options: Any) -> Job:
    """A refresh that waits for a worker."""
    with database().writing() as session:
        return enqueue_refresh(session, RefreshOptions(**options), owner="admin").job


def steps_of(job: Job) -> list[RefreshStep]:
    """How far it is, as written down."""
    return read_steps(the(Refresh, job_id=job.id).progress)


def states_of(job: Job) -> dict[str, str]:
    """The states of its nodes, by name."""
    return {step.name: step.state.value for step in steps_of(job)}
