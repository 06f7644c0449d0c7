"""`longshore nodes`: what it orders, what it shows until the end, and how it leaves a job going. The nodes are fake."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from shared.db.engine import database
from shared.db.models import AuditEvent, Job, JobState, Refresh
from shared.errors import ErrorClass, WorkError
from tests.concurrency import TIMEOUT_SECONDS
from tests.git_service import make_algorithm
from tests.rows import HASH, fresh, make_registry, one_row
from tests.service.api.serving import pending_instance, pushed_version, ready
from tests.service.workers.nodes.fake_node_pool import FakeNodePool
from tests.unit.cli.conftest import Longshore
from workers import tasks
from workers.nodes import refresh


@pytest.fixture
def migrated(longshore: Longshore) -> Longshore:
    assert longshore("migrate").exit_code == 0
    return longshore


@pytest.fixture
def nodes(
    migrated: Longshore,  # noqa: ARG001 - it comes first
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FakeNodePool]:
    """Nodes, and a worker that refreshes them once it is ordered."""
    fake, ended = FakeNodePool(), threading.Event()
    monkeypatch.setattr(refresh, "node_pool", lambda: fake)

    def look() -> None:
        while not ended.wait(0.05):
            with database().reading() as session:
                job = session.scalar(select(Job).where(Job.state == JobState.QUEUED))
            if job is not None:
                tasks.refresh(job.id)

    worker = threading.Thread(target=look)
    worker.start()
    yield fake
    ended.set()
    worker.join(TIMEOUT_SECONDS)


def test_each_node_is_shown_until_the_end(migrated: Longshore, nodes: FakeNodePool) -> None:
    done = migrated("nodes", "refresh", "--node", "node-2", "--node", "node-1", "--restart", "none")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[-1] == "node-2: done It is ready, and pulls images again."
    assert "node-1: done It is ready, and pulls images again." in lines
    assert done.stderr.endswith("Done.\n")
    assert nodes.done == ["node-1", "node-2"]
    entry = one_row(AuditEvent, action="nodes.refresh")
    assert (entry.actor, entry.detail) == ("cli", {"what": "nodes", "nodes": ["node-2", "node-1"], "restart": "none"})


def test_a_dry_run_shows_the_plan_of_each_node(migrated: Longshore, nodes: FakeNodePool) -> None:
    shown = migrated("nodes", "refresh", "--dry-run", "--node", "node-1").stdout
    assert "node-1: skipped Nothing was done: 1 pods would be evicted." in shown
    assert (
        "  would be evicted: default/pod-of-node-1\n  would stay: kube-system/proxy\n  waits for: default/budget"
        in shown
    )
    assert nodes.done == []


def test_what_was_not_done_ends_with_status_1(migrated: Longshore, nodes: FakeNodePool) -> None:
    def during(_nodes: FakeNodePool, _name: str, _stop: object) -> None:
        raise WorkError(ErrorClass.INVALID, "A budget allows no eviction.")

    nodes.during = during
    failed = migrated("nodes", "refresh")
    assert (failed.exit_code, "longshore: node-1: A budget allows no eviction. (failed)" in failed.stderr) == (1, True)
    assert "node-1: failed node-1: A budget allows no eviction." in failed.stdout
    assert "node-2: waiting" in failed.stdout


def test_ctrl_c_leaves_it_going_and_says_how_to_cancel_it(migrated: Longshore, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.nodes.time.sleep", interrupt)
    left = migrated("nodes", "refresh")
    job = one_row(Job)
    assert left.exit_code == 130
    assert f"`longshore nodes cancel {job.id}` cancels it" in left.stderr
    assert job.state == JobState.QUEUED
    assert "No worker of the queue nodes is running" in left.stderr
    again = migrated("nodes", "refresh", "--no-wait")
    assert (again.exit_code, job.id in again.stderr) == (1, True)
    assert migrated("nodes", "cancel", job.id).exit_code == 0
    assert fresh(job).state == JobState.CANCELLED
    assert migrated("nodes", "cancel", job.id).exit_code == 1
    assert migrated("nodes", "cancel", "nothing").exit_code == 1
    ordered = migrated("nodes", "refresh", "--no-wait")
    assert one_row(Job, id=ordered.stdout.strip()).state == JobState.QUEUED


def test_runners_are_named_by_version_and_registry(migrated: Longshore) -> None:
    algorithm, registry = make_algorithm("acme"), make_registry(name="scanned")
    instance = pending_instance(algorithm, pushed_version(algorithm, registry))
    ready(instance)
    one_version = ("--algorithm", algorithm.path, "--git-hash", HASH[:7])
    runners = ("nodes", "refresh", "--what", "runners")
    shown = migrated(*runners, "--dry-run", "--registry", "scanned", *one_version).stdout
    assert instance.image in shown
    make_registry(name="other")
    assert instance.image not in migrated(*runners, "--dry-run", "--registry", "other").stdout
    ordered = migrated(*runners, "--no-wait", "--registry", "scanned", *one_version).stdout.strip()
    options = one_row(Refresh, job_id=ordered).options
    assert (options["registry_id"], options["version_id"]) == (registry.id, instance.version_id)


@pytest.mark.parametrize(
    "options",
    [
        ("--registry", "scanned"),
        ("--what", "runners", "--node", "node-1"),
        ("--what", "runners", "--restart", "none"),
        ("--what", "runners", "--algorithm", "acme/Hello"),
        ("--what", "runners", "--git-hash", HASH),
    ],
)
def test_what_does_not_go_together_is_said(migrated: Longshore, options: tuple[str, ...]) -> None:
    assert migrated("nodes", "refresh", *options).exit_code == 2
