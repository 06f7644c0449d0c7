"""Rules 3 and 7: a push is `succeeded` only when the registry itself shows, under every tag, what was pushed."""

import os
import uuid

import pytest
from docker import APIClient

from shared.errors import ErrorClass
from shared.models import Algorithm, Build, ImagePush, Job, JobState, PushState, Registry
from shared.registries import address_of
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from tests.git_service import make_algorithm
from tests.rows import HASH, build_commit, change, fresh, make_registry, publish, push, the
from tests.service.workers.lying_proxy import lying_proxy
from tests.unit.workers.engine.sources import archive_of
from workers.execution import run_job
from workers.pushing import PushWork

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("sqlite_installation", "broker")]

PUSHER = Credentials("pusher", "secret")


@pytest.fixture
def image_id(docker_host, monkeypatch):
    """An image with one small layer that no registry has yet."""
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    client, name = APIClient(base_url=docker_host), f"pushed-{uuid.uuid4().hex[:12]}"
    client.import_image_from_data(archive_of({"random": os.urandom(4096)}), repository=name)
    yield client.inspect_image(name)["Id"]
    client.remove_image(name, force=True)
    client.close()


@pytest.fixture
def build(image_id) -> Build:
    build = build_commit(make_algorithm())
    change(build, image_id=image_id)
    return fresh(build)


def run_push(build: Build, registry: Registry, credentials: Credentials | None = None) -> ImagePush:
    """What the row says after a push was ordered and run once."""
    job = push(build, registry, credentials)
    run_job(job.id, PushWork)
    return the(ImagePush, id=job.push_id)


def digest_in(registry: Registry, row: ImagePush, tag: str) -> str | None:
    """What the registry itself answers."""
    path = row.image.partition("/")[2].rpartition(":")[0]
    with RegistryClient(address_of(registry), PUSHER) as client:
        return client.manifest_digest(path, tag)


def test_a_push_has_succeeded_when_the_registry_shows_it_under_both_tags(build, registry):
    target = make_registry(registry.url, PUSHER)
    algorithm = the(Algorithm, id=build.algorithm_id)
    publish(algorithm)
    row = run_push(build, target)
    assert (row.state, row.last_success_digest) == (PushState.SUCCEEDED, row.digest)
    assert row.digest == digest_in(target, row, HASH) == digest_in(target, row, "0.0.1")
    assert row.digest in row.message


@pytest.mark.parametrize("about", ["", HASH, "0.0.1"])
@pytest.mark.parametrize("lie", ["gone", "other"])
def test_a_push_that_the_registry_does_not_show_has_not_succeeded(build, registry, lie, about):
    publish(the(Algorithm, id=build.algorithm_id))
    with lying_proxy(registry.host) as proxy:
        proxy.says, proxy.about = lie, about
        row = run_push(build, make_registry(f"http://{proxy.host}", PUSHER))
    assert (row.state, row.digest, row.last_success_digest) == (PushState.QUEUED, None, None)
    assert proxy.host in row.message


def test_through_the_same_way_the_truth_succeeds(build, registry):
    with lying_proxy(registry.host) as proxy:
        row = run_push(build, make_registry(f"http://{proxy.host}", PUSHER))
    assert row.state == PushState.SUCCEEDED


def test_a_wrong_password_fails_and_the_last_good_push_stays(build, registry):
    target = make_registry(registry.url, PUSHER)
    good = run_push(build, target)
    row = run_push(build, target, Credentials("pusher", "wrong"))
    job = the(Job, id=row.job_id)
    assert (row.state, job.state, job.error_class) == (PushState.FAILED, JobState.FAILED, ErrorClass.AUTH)
    assert (row.digest, row.last_success_digest) == (None, good.digest)
    assert run_push(build, target).digest == good.digest
