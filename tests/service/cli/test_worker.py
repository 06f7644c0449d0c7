"""`longshore worker`: says how it is, and hands its jobs back when it stops."""

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from api.dispatch import send
from cli.runtime import migrate
from dev.services.clock import wrong_clock
from dev.services.processes import free_port
from shared.db.engine import database
from shared.db.models import JobState, WorkerProcess
from shared.jobs.worker_processes import sweep_age_seconds
from shared.settings import settings
from tests.environment import longshore_environment
from tests.git_service import make_algorithm
from tests.rows import compile_commit, fresh
from tests.service.cli.running import LONGSHORE, longshore, processes_of, until

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
def installed(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[None]:
    """A migrated database and a Redis, as the settings name them."""
    on_postgres = getattr(request, "param", "sqlite") == "postgresql"
    url = request.getfixturevalue("empty_postgres_url") if on_postgres else ""
    options = {"redis_url": redis_url, "database_url": url, "shutdown_seconds": 1, "source_allow_http": True}
    with longshore_environment(tmp_path, tables=False, **options):
        migrate(database())
        yield


@pytest.fixture
def silent_server() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def nodes() -> list[WorkerProcess]:
    with database().reading() as session:
        return list(session.scalars(select(WorkerProcess)))


def readiness(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=30) as answer:
            return answer.status, json.loads(answer.read())["status"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["status"]


@pytest.mark.parametrize("installed", ["sqlite", "postgresql"], indirect=True)
def test_a_job_that_runs_is_released_by_a_worker_that_stops(
    tmp_path: Path, silent_server: int, docker_host: str
) -> None:
    algorithm = make_algorithm(repository_url=f"http://127.0.0.1:{silent_server}/silent.git")
    enqueued = compile_commit(algorithm)
    log = tmp_path / "worker.log"
    engine = {"DOCKER_HOST": docker_host, "LONGSHORE_BUILD_NETWORK": "host"}  # no network is made for it
    with longshore(
        "worker", "--queues", "builds", log=log, ready=lambda: "ready." in log.read_text(), variables=engine
    ) as worker:
        send(enqueued.messages)
        until(lambda: fresh(enqueued.job).state == JobState.RUNNING, "the job runs")
        claimed = fresh(enqueued.job)
        assert claimed.lease_owner is not None
        assert claimed.lease_owner.rpartition("/")[0] == nodes()[0].name
        worker.stop(grace=60)
        assert worker.exit_status == 0, worker.last_lines()
    given_back = fresh(enqueued.job)
    assert (given_back.state, given_back.lease_owner, given_back.tries) == (JobState.QUEUED, None, 0)
    assert given_back.claim > claimed.claim
    assert nodes() == []


def test_a_worker_that_waits_for_redis_stops_when_it_is_told_to(tmp_path: Path) -> None:
    nobody = {"LONGSHORE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    log = tmp_path / "worker.log"
    with longshore(
        *("worker", "--queues", "maintenance"),
        log=log,
        ready=lambda: "Cannot connect to redis" in log.read_text(),
        variables=nobody,
    ) as worker:
        worker.stop(grace=60)
        assert worker.exit_status == 0, worker.last_lines()
    assert nodes() == []


def test_without_an_engine_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "worker.log"
    missing = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "LONGSHORE_WORKER_HEALTH_PORT": str(port)}
    with longshore(
        "worker", "--queues", "builds,maintenance", log=log, ready=lambda: bool(nodes()), variables=missing
    ) as worker:
        (node,) = nodes()
        assert node.queues == ",builds,maintenance,"
        assert node.problem is not None
        assert f"The Docker engine at unix://{tmp_path}/none.sock does not answer" in node.problem
        assert readiness(port) == (503, node.problem)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
            assert answer.status == 200
        worker.stop(grace=60)
        assert worker.exit_status == 0, worker.last_lines()
    assert nodes() == []


def test_a_worker_that_needs_no_engine_does_not_ask_for_one(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "worker.log"
    missing = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock", "LONGSHORE_WORKER_HEALTH_PORT": str(port)}
    with longshore("worker", "--queues", "pushes,maintenance", log=log, ready=lambda: bool(nodes()), variables=missing):
        assert readiness(port) == (200, "ok")
        assert nodes()[0].problem is None


def test_a_worker_sweeps_whose_clock_is_five_minutes_ahead(tmp_path: Path) -> None:
    from workers.app import celery  # it reads the settings

    log = tmp_path / "worker.log"
    ahead = wrong_clock(300)
    tick = celery.conf.beat_schedule["sweep"]
    with longshore(
        "worker", "--queues", "maintenance", log=log, ready=lambda: "ready." in log.read_text(), variables=ahead
    ):
        with celery.connection_for_write(settings().redis_url) as connection:
            celery.send_task(tick["task"], connection=connection, **tick["options"])
        until(lambda: swept() is not None, "it has swept")
    assert swept() is not None


def swept() -> int | None:
    with database().reading() as session:
        return sweep_age_seconds(session)


@pytest.mark.usefixtures("tmp_path")
def test_a_taken_health_port_is_said(silent_server: int) -> None:
    done = subprocess.run(
        [*LONGSHORE, "worker", "--queues", "maintenance"],
        env={**os.environ, "LONGSHORE_WORKER_HEALTH_PORT": str(silent_server)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"longshore: LONGSHORE_WORKER_HEALTH_PORT: cannot listen on 127.0.0.1:{silent_server}" in done.stderr
    assert nodes() == []


def test_the_pool_of_a_killed_worker_is_gone_too(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with longshore("worker", "--queues", "maintenance", log=log, ready=lambda: bool(nodes()), variables={}) as worker:
        until(lambda: "ready." in log.read_text(), "its pool works")
        family = processes_of(tmp_path)
        assert len(family) > 1
        os.kill(worker.pid, signal.SIGKILL)
        until(lambda: not set(processes_of(tmp_path)) & set(family), "nothing of it is left")
        assert processes_of(tmp_path) == {}
