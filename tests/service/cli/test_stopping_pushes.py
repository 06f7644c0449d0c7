"""A worker that is told to stop in the middle of a push: another one goes on at once, nobody waits for a lease."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from api.dispatch import send
from cli.runtime import migrate
from dev.services.processes import Child
from dev.services.registry import PrivateRegistry
from shared.db.engine import database
from shared.db.models import Build, ImagePush, Job, JobState, PushState
from shared.jobs.dispatch import JobMessage
from shared.registry.credentials import Credentials
from tests.environment import longshore_environment
from tests.rows import fresh, make_registry, one_row, push
from tests.service.cli.running import longshore, until
from tests.service.large_build import large_build
from tests.service.workers.docker.holding_proxy import HoldingProxy

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("installed")]

MEBIBYTE = 1024 * 1024
LEASE_SECONDS = 600
"""Longer than a test may take: whoever waited for it would not be done in time."""


@pytest.fixture
def installed(tmp_path: Path, redis_url: str, empty_postgres_url: str) -> Iterator[None]:
    options = {"redis_url": redis_url, "database_url": empty_postgres_url, "shutdown_seconds": 2}
    with longshore_environment(tmp_path, tables=False, lease_seconds=LEASE_SECONDS, **options):
        migrate(database())
        yield


@pytest.fixture
def build(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    with large_build(docker_host) as build:
        yield build


def worker(directory: Path, name: str) -> AbstractContextManager[Child]:
    log = directory / f"{name}.log"
    command = ("worker", "--queues", "pushes", "--concurrency", "1")
    return longshore(*command, log=log, ready=lambda: "ready." in log.read_text(), variables={})


def push_stuck_in(proxy: HoldingProxy, build: Build) -> Job:
    job = push(build, make_registry(f"http://{proxy.host}", Credentials("pusher", "secret")))
    send([JobMessage(job.id, job.kind)])
    until(proxy.stuck.is_set, "the push is in the middle of a layer")
    return job


def stop(running: Child) -> None:
    running.stop(grace=60)
    assert running.exit_status == 0, running.last_lines()


def test_another_worker_goes_on_at_once(tmp_path: Path, build: Build, registry: PrivateRegistry) -> None:
    with HoldingProxy(registry.host, hold_after=MEBIBYTE, lenient=True) as proxy, worker(tmp_path, "first") as first:
        job = push_stuck_in(proxy, build)
        with worker(tmp_path, "second"):
            stop(first)
            proxy.resume()  # the engine sends a layer to one place once at a time, and the first is still at it
            until(lambda: fresh(job).state == JobState.SUCCEEDED, "the second worker has pushed it")
    done = fresh(job)
    assert (done.claim > 1, done.tries, done.losses) == (True, 0, 0)
    assert one_row(ImagePush, id=job.push_id).state == PushState.SUCCEEDED


def test_a_push_that_ends_within_the_grace_period_is_not_handed_back(
    tmp_path: Path, build: Build, registry: PrivateRegistry
) -> None:
    job = push(build, make_registry(registry.url, Credentials("pusher", "secret")))
    with worker(tmp_path, "only") as only:
        send([JobMessage(job.id, job.kind)])
        until(lambda: fresh(job).state != JobState.QUEUED, "the push has begun")
        stop(only)
    done = fresh(job)
    assert (done.state, done.claim) == (JobState.SUCCEEDED, 1)
