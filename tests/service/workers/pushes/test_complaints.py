"""Problems that users of other systems reported, each with the number of the issue there.

Harbor's replication (goharbor/harbor), Quay's mirroring (quay/quay), and docker-py: a real engine and a real registry.
"""

import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import redis
from docker import APIClient
from docker.errors import ImageNotFound

from dev.services.registry import PrivateRegistry
from shared.commands.cancel import cancel_job
from shared.db.clock import now_ms
from shared.db.engine import database
from shared.db.models import Build, ImagePush, Job, JobState, PushState
from shared.errors import ErrorClass
from shared.jobs.claims import claim_job
from shared.registry.credentials import Credentials
from tests.concurrency import TIMEOUT_SECONDS, run_concurrently
from tests.rows import change, end_push, fresh, lose_lease, make_claim, make_registry, one_row, push, try_claim
from tests.service.large_build import large_build
from tests.service.workers.docker.holding_proxy import HoldingProxy
from tests.service.workers.lying_proxy import lying_proxy
from workers.jobs.executor import run_job
from workers.maintenance.sweep import sweep
from workers.pushes.push import PushWork

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("installation", "broker")]

MEBIBYTE = 1024 * 1024
PUSHER, WRONG = Credentials("pusher", "secret"), Credentials("pusher", "wrong")


@pytest.fixture
def build(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    with large_build(docker_host) as build:
        yield build


def run(job: Job) -> ImagePush:
    run_job(job.id, PushWork)
    return one_row(ImagePush, id=job.push_id)


def test_harbor_8202_a_push_whose_worker_and_message_are_gone_ends_by_itself(
    build: Build, registry: PrivateRegistry, broker: redis.Redis
) -> None:
    """There: executions stay in progress for a month, until an operator fixes the table."""
    job = push(build, make_registry(registry.url, PUSHER))
    make_claim(job, "a worker that dies/1")
    broker.flushdb()
    lose_lease(job)
    sweep()
    row = one_row(ImagePush, id=job.push_id)
    assert (row.state, "was lost" in row.message) == (PushState.STALLED, True)
    assert broker.llen("pushes") == 1, "it is reported"
    assert run(job).state == PushState.SUCCEEDED
    assert (fresh(job).state, fresh(job).tries) == (JobState.SUCCEEDED, 0)


def test_harbor_15708_a_stop_stops_in_the_middle_of_a_layer(build: Build, registry: PrivateRegistry) -> None:
    """There: a cancelled replication continues, or stays "stopping"."""
    with HoldingProxy(registry.host, hold_after=MEBIBYTE) as proxy:
        job = push(build, make_registry(f"http://{proxy.host}", PUSHER))
        worker = threading.Thread(target=run_job, args=(job.id, PushWork))
        worker.start()
        assert proxy.stuck.wait(TIMEOUT_SECONDS)
        with database().writing() as session:
            cancel_job(session, session.get_one(Job, job.seq))
        assert one_row(ImagePush, id=job.push_id).state == PushState.CANCELLED
        worker.join(TIMEOUT_SECONDS)
        assert not worker.is_alive()
        assert fresh(job).lease_owner is None, "no claim is left"
        proxy.resume()
        assert proxy.hung_up.wait(TIMEOUT_SECONDS), "the engine ended the upload"
    assert (fresh(job).state, one_row(ImagePush, id=job.push_id).state) == (JobState.CANCELLED, PushState.CANCELLED)


def test_harbor_17269_runs_do_not_overlap(build: Build, registry: PrivateRegistry) -> None:
    """There: a run starts while the previous one still runs, and both push the same."""
    target, twin = make_registry(registry.url, PUSHER), make_registry(registry.url, PUSHER)
    old = push(build, target)
    make_claim(old, "worker/1")
    new, of_twin = push(build, target), push(build, twin)
    assert fresh(old).state == JobState.SUPERSEDED
    assert (try_claim(new), try_claim(of_twin)) == (None, None), "the old worker has not released the lock"
    change(old, lease_owner=None, lease_expires_at=None)
    claims = run_concurrently(*[
        lambda job=job: claim_job(database(), job.id, owner=f"worker/{job.seq}", lease_seconds=60)
        for job in (new, of_twin)
    ])  # fmt: skip
    assert len([claim for claim in claims if claim is not None]) == 1


def test_harbor_19199_a_429_is_a_wait_and_not_a_failure(build: Build, registry: PrivateRegistry) -> None:
    """There: a registry that limits its rate makes the replication fail."""
    with lying_proxy(registry.host) as proxy:
        target = make_registry(f"http://{proxy.host}", PUSHER)
        job = push(build, target)
        proxy.says = "slow down"
        for _ in range(8):  # more often than a push is attempted
            row = run(job)
            assert (row.state, "slow down" in row.message) == (PushState.QUEUED, True)
            change(target, throttled_until=now_ms() - 1)
        assert fresh(job).tries == 0
        proxy.says = "truth"
        assert run(job).state == PushState.SUCCEEDED
    assert fresh(target).throttles == 0


def test_harbor_15355_a_retry_that_succeeded_shows_success(build: Build, registry: PrivateRegistry) -> None:
    """There: the status stays "failed" after the retry has succeeded."""
    target = make_registry(registry.url, PUSHER)
    failed = run(push(build, target, WRONG))
    assert failed.state == PushState.FAILED
    job = push(build, target)
    row = run(job)
    assert (row.id, row.state, row.attempt, row.digest) == (failed.id, PushState.SUCCEEDED, 1, row.last_success_digest)
    assert "401" not in row.message
    assert (fresh(job).state, fresh(job).error_message) == (JobState.SUCCEEDED, None)


def test_harbor_15355_a_late_failure_of_an_older_push_does_not_hide_it(build: Build) -> None:
    target = make_registry("registry.example.com")
    old = push(build, target)
    claim = make_claim(old)
    new = push(build, target)
    change(old, lease_owner=None, lease_expires_at=None)
    end_push(make_claim(new))
    from shared.fence import FenceLostError
    from tests.rows import end_badly

    with pytest.raises(FenceLostError):
        end_badly(claim)
    assert one_row(ImagePush, id=new.push_id).state == PushState.SUCCEEDED


def test_quay_7000_a_lease_that_ran_out_is_taken_over(build: Build, registry: PrivateRegistry) -> None:
    """There: a mirror whose worker died is never claimed again, though its claim has expired."""
    job = push(build, make_registry(registry.url, PUSHER))
    first = make_claim(job, "dead/1")
    assert try_claim(job) is None
    lose_lease(job)
    row = run(job)  # immediately, before any sweep
    assert (row.state, fresh(job).claim, fresh(job).losses) == (PushState.SUCCEEDED, first.number + 1, 1)


def test_docker_py_3161_an_error_inside_a_good_answer_is_an_error(
    build: Build, registry: PrivateRegistry, docker_host: str
) -> None:
    """There: `push` returns normally although the registry refused the image."""
    refused = {"username": "pusher", "password": "wrong"}
    with closing(APIClient(base_url=docker_host)) as client:
        client.tag(build.image_id, f"{registry.host}/complaint", tag="one")
        output = client.push(f"{registry.host}/complaint", tag="one", auth_config=refused)
        with suppress(ImageNotFound):  # only clean-up: the test is about the result of docker-py
            client.remove_image(f"{registry.host}/complaint:one")
    assert '"error"' in output, "docker-py did not raise"
    row = run(push(build, make_registry(registry.url, WRONG)))
    job = one_row(Job, id=row.job_id)
    assert (row.state, job.error_class, row.digest) == (PushState.FAILED, ErrorClass.AUTH, None)
