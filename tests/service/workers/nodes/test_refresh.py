"""Refresh one node after the other on a fake pool: cancelled, resumed, and no node left cordoned."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from shared.cancellation import CancelToken
from shared.commands.cancel import cancel_job
from shared.db.engine import database
from shared.db.models import Job, JobKind, JobState, PeriodicRun, Refresh
from shared.errors import ErrorClass, WorkError
from shared.jobs.leases import release_all, revoke_claims
from shared.jobs.queues import Queues
from shared.jobs.stalls import requeue_lost
from shared.jobs.worker_processes import refresh_worker
from tests.concurrency import TIMEOUT_SECONDS
from tests.rows import change, fresh, lose_lease, make_claim, one_row
from tests.service.workers.nodes.conftest import enqueued, states_of, steps_of
from tests.service.workers.nodes.fake_node_pool import FakeNodePool
from workers import tasks
from workers.jobs.worker_id import WORKER_ID
from workers.maintenance.sweep import sweep
from workers.nodes.refresh import uncordon_after_lost_workers

pytestmark = pytest.mark.usefixtures("installation", "broker")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def run(job: Job) -> Job:
    tasks.refresh(job.id)
    return fresh(job)


def cancel(job: Job) -> None:
    with database().writing() as session:
        cancel_job(session, session.get_one(Job, job.seq))


def refusing(node: str, error_class: ErrorClass) -> Callable[[FakeNodePool, str, CancelToken], None]:
    def during(_nodes: FakeNodePool, name: str, _stop: CancelToken) -> None:
        if name == node:
            raise WorkError(error_class, "A budget allows no eviction.")

    return during


class Held:
    """Keeps a node cordoned until the refresh is cancelled."""

    def __init__(self, nodes: FakeNodePool, node: str) -> None:
        self.begun = threading.Event()
        self._node = node
        nodes.during = self

    def __call__(self, _nodes: FakeNodePool, name: str, stop: CancelToken) -> None:
        if name == self._node:
            self.begun.set()
            stop.sleep(TIMEOUT_SECONDS)


def test_every_node_is_refreshed_once_one_after_the_other(nodes: FakeNodePool) -> None:
    seen = []
    nodes.during = lambda now, _name, _stop: seen.append(set(now.cordoned))
    job = enqueued()
    assert run(job).state == JobState.SUCCEEDED
    assert nodes.done == ["node-1", "node-2", "node-3"]
    assert seen == [{"node-1"}, {"node-2"}, {"node-3"}]
    assert states_of(job) == {"node-1": "done", "node-2": "done", "node-3": "done"}
    for step in steps_of(job):
        assert (step.started_at or 0) <= (step.finished_at or 0)
        assert step.started_at is not None
    assert one_row(Refresh, job_id=job.id).uncordoned_at is not None


def test_only_the_named_nodes_are_refreshed(nodes: FakeNodePool) -> None:
    run(enqueued(nodes=("node-3", "node-1")))
    assert nodes.done == ["node-1", "node-3"]


def test_a_name_that_no_node_has_fails_before_anything_is_done(nodes: FakeNodePool) -> None:
    failed = run(enqueued(nodes=("node-1", "node-9")))
    assert (failed.state, failed.error_class, nodes.done) == (JobState.FAILED, ErrorClass.NOT_FOUND, [])
    assert "node-9" in (failed.error_message or "")
    assert "node-1" not in (failed.error_message or "")


def test_without_nodes_it_says_how_nodes_become_some(nodes: FakeNodePool) -> None:
    nodes.names = []
    assert "LONGSHORE_KUBERNETES_NODE_SELECTOR" in (run(enqueued()).error_message or "")


def test_a_node_that_fails_ends_it_and_the_next_order_begins_with_what_is_left(nodes: FakeNodePool) -> None:
    nodes.during = refusing("node-2", ErrorClass.INVALID)
    job = enqueued()
    failed = run(job)
    assert (failed.state, failed.error_message) == (JobState.FAILED, "node-2: A budget allows no eviction.")
    assert states_of(job) == {"node-1": "done", "node-2": "failed", "node-3": "waiting"}
    assert nodes.cordoned == {}
    nodes.during, nodes.done = (lambda *_: None), []
    assert run(enqueued()).state == JobState.SUCCEEDED
    assert nodes.done == ["node-2", "node-3", "node-1"]
    nodes.done = []
    run(enqueued())
    assert nodes.done == ["node-1", "node-2", "node-3"]


def test_a_cluster_that_is_away_for_a_while_costs_no_node(nodes: FakeNodePool) -> None:
    nodes.during = refusing("node-2", ErrorClass.UNAVAILABLE)
    job = enqueued()
    waiting = run(job)
    assert (waiting.state, waiting.tries) == (JobState.QUEUED, 0)
    assert states_of(job) == {"node-1": "done", "node-2": "waiting", "node-3": "waiting"}
    assert "A budget allows no eviction. Looked at again in 15 s." in steps_of(job)[1].step
    nodes.during = lambda *_: None
    change(job, next_attempt_at=None)
    assert run(job).state == JobState.SUCCEEDED
    assert nodes.done == ["node-1", "node-2", "node-3"]


def test_a_node_that_is_gone_when_its_turn_comes_is_passed_over(nodes: FakeNodePool) -> None:
    def remove_second(now: FakeNodePool, _name: str, _stop: CancelToken) -> None:
        if "node-2" in now.names:
            now.names.remove("node-2")

    nodes.during = remove_second
    job = enqueued()
    assert run(job).state == JobState.SUCCEEDED
    assert states_of(job) == {"node-1": "done", "node-2": "skipped", "node-3": "done"}


def test_a_dry_run_writes_the_plan_of_each_node_and_touches_none(nodes: FakeNodePool) -> None:
    job = enqueued(dry_run=True)
    assert run(job).state == JobState.SUCCEEDED
    assert (nodes.done, nodes.cordoned) == ([], {})
    first = steps_of(job)[0]
    assert first.state == "skipped"
    assert first.plan == {
        "evicted": ["default/pod-of-node-1"],
        "stay": ["kube-system/proxy"],
        "waits_for": ["default/budget"],
        "refused_for": [],
    }


def test_a_cancelled_refresh_stops_in_the_middle_and_leaves_no_node_cordoned(
    nodes: FakeNodePool, pool: ThreadPoolExecutor
) -> None:
    held, job = Held(nodes, "node-2"), enqueued()
    running = pool.submit(run, job)
    assert held.begun.wait(TIMEOUT_SECONDS)
    assert nodes.cordoned == {"node-2": job.id}
    cancel(job)
    ended = running.result(TIMEOUT_SECONDS)
    assert (ended.state, ended.lease_owner, nodes.cordoned) == (JobState.CANCELLED, None, {})
    assert states_of(job) == {"node-1": "done", "node-2": "failed", "node-3": "waiting"}
    assert steps_of(job)[1].step == "It was cancelled."


def test_a_worker_that_stops_lets_go_of_the_node_before_anybody_else_begins(
    nodes: FakeNodePool, pool: ThreadPoolExecutor
) -> None:
    held, job = Held(nodes, "node-2"), enqueued()
    running = pool.submit(run, job)
    assert held.begun.wait(TIMEOUT_SECONDS)
    with database().writing() as session:
        revoke_claims(session, owner_prefix=f"{WORKER_ID}/", kind=JobKind.REFRESH)
    let_go = running.result(TIMEOUT_SECONDS)
    assert nodes.cordoned == {}
    assert let_go.lease_owner is not None  # so nobody can claim it until the pool has ended
    with database().writing() as session:
        release_all(session, owner_prefix=f"{WORKER_ID}/")
    assert states_of(job) == {"node-1": "done", "node-2": "waiting", "node-3": "waiting"}
    nodes.during = lambda *_: None
    assert run(job).state == JobState.SUCCEEDED
    assert nodes.done == ["node-1", "node-2", "node-3"]


def test_the_next_worker_goes_on_where_a_dead_one_was(nodes: FakeNodePool) -> None:
    job = enqueued()
    killed(nodes, job)
    assert nodes.cordoned == {"node-2": job.id}
    lose_lease(job)
    sweep()
    assert states_of(job) == {"node-1": "done", "node-2": "waiting", "node-3": "waiting"}
    nodes.during = lambda *_: None
    assert run(job).state == JobState.SUCCEEDED
    assert nodes.done == ["node-1", "node-2", "node-3"]
    assert nodes.cordoned == {}


def killed(nodes: FakeNodePool, job: Job) -> None:
    """Leave the state of a worker that is killed while it refreshes the second node."""

    class Killed(BaseException):
        pass

    def during(now: FakeNodePool, name: str, _stop: CancelToken) -> None:
        if name == "node-2":
            now.leaves_cordoned = True
            raise Killed

    nodes.during = during
    with pytest.raises(Killed):
        tasks.refresh(job.id)
    nodes.leaves_cordoned = False


def test_a_worker_that_was_taken_for_dead_leaves_the_node_of_the_next_one_alone(nodes: FakeNodePool) -> None:
    job = enqueued()

    def during(_now: FakeNodePool, _name: str, stop: CancelToken) -> None:
        lose_lease(job)
        make_claim(job, "another/1")
        stop.sleep(TIMEOUT_SECONDS)

    nodes.during = during
    run(job)
    assert (fresh(job).state, fresh(job).lease_owner) == (JobState.RUNNING, "another/1")
    assert nodes.uncordon_calls == []


@pytest.mark.parametrize("end", ["cancelled", "lost"])
def test_what_a_dead_worker_left_cordoned_is_released_once_its_job_has_ended(
    nodes: FakeNodePool, broker: redis.Redis, end: str
) -> None:
    job = enqueued()
    killed(nodes, job)
    if end == "cancelled":
        cancel(job)
    lose_lease(job)
    uncordon_after_lost_workers()
    assert nodes.cordoned == {"node-2": job.id}  # its worker may still be at it
    if end == "lost":
        sweep()
        uncordon_after_lost_workers()
        assert nodes.cordoned == {"node-2": job.id}  # the next worker goes on with it
        change(job, state=JobState.RUNNING)  # and is lost as well
        with database().writing() as session:
            requeue_lost(session, job.id, claim=fresh(job).claim, max_losses=2)
    broker.flushdb()
    sweep()
    assert broker.lrange(Queues.NODES, 0, -1) == []  # no worker of the queue is live
    with database().writing() as session:
        refresh_worker(session, "worker", [Queues.NODES], None)
    sweep()
    sweep()
    assert broker.llen(Queues.NODES) == 1
    uncordon_after_lost_workers()
    assert nodes.cordoned == {}
    assert one_row(Refresh, job_id=job.id).uncordoned_at is not None
    change(one_row(PeriodicRun, name="uncordon"), at=0)
    sweep()
    assert broker.llen(Queues.NODES) == 1


def test_on_one_docker_machine_there_are_no_nodes() -> None:
    failed = run(enqueued())
    assert (failed.state, failed.error_class) == (JobState.FAILED, ErrorClass.INVALID)
    assert "what=runners" in (failed.error_message or "")
    uncordon_after_lost_workers()
    assert one_row(Refresh, job_id=failed.id).uncordoned_at is not None
