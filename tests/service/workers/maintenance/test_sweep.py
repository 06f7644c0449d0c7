"""The sweep finds lost work by query, and concurrent sweeps do no harm."""

import base64
import json

import pytest
import redis
from sqlalchemy import select, update

from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import ImagePush, Job, JobState, PeriodicRun, PushEvent, PushState, SourceDelivery
from shared.git.deliveries import record_delivery
from shared.jobs.queues import Queues
from shared.jobs.worker_processes import refresh_worker
from shared.registry.credentials import Credentials
from tests.concurrency import run_concurrently
from tests.git_service import make_algorithm
from tests.rows import (
    HASH,
    build_commit,
    change,
    compile_commit,
    end_build,
    fresh,
    lose_lease,
    make_claim,
    make_registry,
    one_row,
    publish,
    push,
)
from workers.app import celery
from workers.maintenance.sweep import sweep, sweep_on_tick

pytestmark = pytest.mark.usefixtures("installation", "broker")


def dispatched(broker: redis.Redis, queue: str) -> list[str]:
    """Return the ids of the jobs whose messages are in a queue."""
    bodies = [json.loads(message)["headers"]["argsrepr"] for message in broker.lrange(queue, 0, -1)]
    return sorted(body.strip("[]',()") for body in bodies)


def test_what_is_due_is_dispatched_by_a_message_with_its_id_and_nothing_else(broker: redis.Redis) -> None:
    compiled = compile_commit(make_algorithm()).job
    pushed = push(build_commit(make_algorithm()), make_registry(), Credentials("pusher", "open sesame"))
    sweep()
    assert dispatched(broker, "builds") == [compiled.id]
    assert dispatched(broker, "pushes") == [pushed.id]
    for queue, job in (("builds", compiled), ("pushes", pushed)):
        (message,) = broker.lrange(queue, 0, -1)
        arguments = json.loads(base64.b64decode(json.loads(message)["body"]))
        assert arguments[:2] == [[job.id], {}]


def test_a_push_goes_on_that_took_the_place_of_one_whose_worker_was_killed(broker: redis.Redis) -> None:
    build, registry = build_commit(make_algorithm()), make_registry()
    killed = push(build, registry)
    make_claim(killed)
    newer = push(build, registry)
    change(newer, dispatched_at=now_ms())  # in vain: the lock was held
    assert fresh(killed).state == JobState.SUPERSEDED
    sweep()
    assert dispatched(broker, "pushes") == []  # its worker may still release it
    lose_lease(killed)
    sweep()
    assert fresh(killed).lease_owner is None
    assert dispatched(broker, "pushes") == [newer.id]


def test_of_ticks_that_piled_up_one_sweeps(broker: redis.Redis) -> None:
    sweep_on_tick()
    job = compile_commit(make_algorithm()).job
    with database().writing() as session:  # that was a moment ago, however busy the machine is
        session.execute(update(PeriodicRun).values(at=now_ms() + 60_000))
    sweep_on_tick()
    assert dispatched(broker, "builds") == []
    with database().writing() as session:
        session.execute(update(PeriodicRun).values(at=now_ms() - 10_000))
    sweep_on_tick()
    assert dispatched(broker, "builds") == [job.id]


def test_every_message_can_be_lost(broker: redis.Redis) -> None:
    enqueued = compile_commit(make_algorithm(), HASH, make_registry())
    sweep()
    broker.flushdb()
    change(enqueued.job, dispatched_at=now_ms() - 3_600_000)
    sweep()
    assert dispatched(broker, "builds") == [enqueued.job.id]
    end_build(make_claim(enqueued.job))
    sweep()
    assert dispatched(broker, "pushes") == [one_row(Job, parent_id=enqueued.job.id).id]


def test_a_lost_job_is_due_again_and_dispatched(broker: redis.Redis) -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    make_claim(job)
    lose_lease(job)
    sweep()
    assert (fresh(job).state, fresh(job).losses) == (JobState.QUEUED, 1)
    assert dispatched(broker, "pushes") == [job.id]


def test_what_waited_for_an_ended_job_is_settled(broker: redis.Redis) -> None:
    algorithm = make_algorithm()
    compiled = compile_commit(algorithm)
    published = publish(algorithm)
    change(compiled.job, state=JobState.SUCCEEDED)
    sweep()
    assert fresh(published.job).state == JobState.SUCCEEDED
    assert dispatched(broker, "builds") == []


def test_stalled_pushes_are_reported() -> None:
    unclaimed = push(build_commit(make_algorithm()), make_registry())
    change(unclaimed, created_at=now_ms() - 3_600_000)
    still = push(build_commit(make_algorithm()), make_registry())
    make_claim(still)
    change(one_row(ImagePush, id=still.push_id), progressed_at=now_ms() - 3_600_000)
    sweep()
    assert one_row(ImagePush, id=unclaimed.push_id).state == PushState.STALLED
    assert one_row(ImagePush, id=still.push_id).state == PushState.STALLED


def test_a_sweep_without_a_broker_does_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    job = push(build_commit(make_algorithm()), make_registry())
    make_claim(job)
    lose_lease(job)
    monkeypatch.setitem(celery.conf, "broker_transport_options", {"max_retries": 0})
    celery.conf.broker_url = "redis://127.0.0.1:1/0"
    celery._after_fork()
    sweep()
    assert fresh(job).state == JobState.QUEUED


def test_sweeps_at_once_do_everything_once(broker: redis.Redis) -> None:
    due = [compile_commit(make_algorithm()).job for _ in range(3)]
    lost = [push(build_commit(make_algorithm()), make_registry()) for _ in range(3)]
    for job in lost:
        make_claim(job, f"worker/{job.seq}")
        lose_lease(job)
    unclaimed = push(build_commit(make_algorithm()), make_registry())
    change(unclaimed, created_at=now_ms() - 3_600_000)
    run_concurrently(sweep, sweep, sweep)
    assert [fresh(job).losses for job in lost] == [1, 1, 1]
    assert dispatched(broker, "builds") == sorted(job.id for job in due)
    assert dispatched(broker, "pushes") == sorted(job.id for job in (*lost, unclaimed))
    with database().reading() as session:
        events = session.scalars(select(PushEvent.kind).order_by(PushEvent.kind)).all()
    assert events == ["stalled-lost", "stalled-lost", "stalled-lost", "stalled-unclaimed"]


def test_what_runs_is_tended_where_somebody_can_and_no_messages_pile_up_where_nobody_does(broker: redis.Redis) -> None:
    sweep()
    assert broker.llen(Queues.SERVING) == 0
    with database().writing() as session:
        refresh_worker(session, "worker", [Queues.SERVING], None)
    sweep()
    (message,) = broker.lrange(Queues.SERVING, 0, -1)
    assert json.loads(message)["headers"]["task"] == "longshore.reconcile"


def test_old_deliveries_of_webhooks_are_removed() -> None:
    with database().writing() as session:
        assert record_delivery(session, "one", ["a" * 64])
        assert record_delivery(session, "two", ["a" * 64])
    change(one_row(SourceDelivery, algorithm_id="one"), created_at=0)
    sweep()
    assert one_row(SourceDelivery).algorithm_id == "two"
