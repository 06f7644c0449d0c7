"""Refreshes that are ordered and worked on, with a fake fleet in the place of the cluster's nodes."""

from typing import Any

import pytest

from shared.commands.refresh import enqueue_refresh
from shared.db.engine import database
from shared.db.models import Job, Refresh
from shared.refreshes import RefreshOptions, RefreshStep, read_steps
from tests.rows import the
from tests.service.workers.nodes.fleet import FakeFleet
from workers.nodes import refresh


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    """The fake fleet, as what `chosen` gives."""
    fake = FakeFleet()
    monkeypatch.setattr(refresh, "fleet", lambda: fake)
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
