"""Refresh instances on a real engine: they drain, and the next call starts one that pulls the image again."""

from types import SimpleNamespace
from typing import cast

import pytest

from dev.services.registry import PrivateRegistry
from shared.db.engine import database
from shared.db.models import InstanceState, JobState, RefreshKind
from shared.instances.states import mark_stopped
from shared.refreshes import RefreshOptions, matching_runners, write_steps
from shared.refreshes import steps_of as steps_for
from tests.rows import fresh, make_registry
from tests.service.workers.lying_proxy import lying_proxy
from tests.service.workers.nodes.conftest import enqueued, states_of, steps_of
from tests.service.workers.serving.conftest import Served, build, image_id, reconciled, served
from workers import tasks

__all__ = ["build", "image_id", "served"]

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("sqlite_installation", "broker")]


def test_what_runs_is_pulled_afresh_by_the_next_call(served: Served, registry: PrivateRegistry) -> None:
    with lying_proxy(registry.host) as proxy:
        recorded = served.pushed_to(cast("PrivateRegistry", SimpleNamespace(url=f"http://{proxy.host}")))
        first = served.started()
        elsewhere = enqueued(what=RefreshKind.RUNNERS, registry_id=make_registry().id)
        tasks.refresh(elsewhere.id)
        assert (fresh(elsewhere).state, steps_of(elsewhere)) == (JobState.SUCCEEDED, [])
        assert fresh(first).state == InstanceState.READY
        job = enqueued(what=RefreshKind.RUNNERS, registry_id=recorded.id, version_id=served.version.id)
        tasks.refresh(job.id)
        assert fresh(job).state == JobState.SUCCEEDED
        assert states_of(job) == {f"{served.algorithm.path}@{served.version.git_hash}": "done"}
        assert (fresh(first).state, fresh(first).message) == (InstanceState.DRAINING, "It was drained by a refresh.")
        proxy.requests.clear()
        again = served.started()
        assert [line for line in proxy.requests if line.endswith(f"/manifests/{again.digest}")]
    assert (again.state, again.id == first.id) == (InstanceState.READY, False)
    assert reconciled(first).state == InstanceState.STOPPED


def test_what_has_ended_by_then_is_passed_over(served: Served, registry: PrivateRegistry) -> None:
    served.pushed_to(registry)
    instance, job = served.started(), enqueued(what=RefreshKind.RUNNERS)
    with database().writing() as session:  # by a worker that was lost then
        write_steps(session, job.id, steps_for(matching_runners(session, RefreshOptions(RefreshKind.RUNNERS))))
        mark_stopped(session, instance.id, "It ended.")
    tasks.refresh(job.id)
    assert fresh(job).state == JobState.SUCCEEDED
    assert [step.state for step in steps_of(job)] == ["skipped"]
    assert fresh(instance).message == "It ended."
