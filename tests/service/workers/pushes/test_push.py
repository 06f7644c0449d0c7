"""Rules 3 and 7: a push has `succeeded` only if the registry has what was pushed under every tag."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from docker import APIClient

from dev.services.registry import PrivateRegistry
from shared.commands.cancel import cancel_job
from shared.db.engine import database
from shared.db.models import Algorithm, Build, DefaultLevel, ImagePush, Job, JobState, PushState, Registry
from shared.encryption import keyring
from shared.errors import ErrorClass
from shared.registries.access import address_of
from shared.registries.blob_locations import known_blob_locations
from shared.registries.credentials import CredentialsUpdate
from shared.registries.defaults import remove_default, set_default
from shared.registries.rows import change_registry, find_registry
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from shared.settings import settings
from tests.git_service import make_algorithm
from tests.rows import HASH, build_commit, change, fresh, make_registry, one_row, publish, push
from tests.service.large_build import large_build
from tests.service.workers.lying_proxy import lying_proxy
from tests.unit.workers.builds.sources import archive_of
from workers.images import factory
from workers.images.engine_transfer import save_image
from workers.jobs.executor import run_job
from workers.jobs.heartbeat import Heartbeat
from workers.pushes import client_pool, locate
from workers.pushes.plan import TRUST_BLOBS_MS
from workers.pushes.push import PushWork

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("sqlite_installation", "broker")]

PUSHER = Credentials("pusher", "secret")
DIRECT = pytest.mark.parametrize("transport", ["direct"], indirect=True)
"""For behaviour that the engine transport does not have."""


@pytest.fixture(params=["direct", "engine"], autouse=True)
def transport(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    sqlite_installation: str,  # noqa: ARG001 - it comes first
) -> Any:
    """Run every test with both transports."""
    monkeypatch.setenv("LONGSHORE_TRANSPORT", request.param)
    settings.cache_clear()
    return request.param


@pytest.fixture
def image_id(docker_host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the id of an image with one small layer that no registry has."""
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    client, name = APIClient(base_url=docker_host), f"pushed-{uuid.uuid4().hex[:12]}"
    client.import_image_from_data(archive_of({"random": os.urandom(4096)}), repository=name)
    yield client.inspect_image(name)["Id"]
    client.remove_image(name, force=True)
    client.close()


@pytest.fixture
def build(image_id: Any) -> Build:
    build = build_commit(make_algorithm())
    change(build, image_id=image_id)
    return fresh(build)


def run_push(build: Build, registry: Registry, credentials: Credentials | None = None) -> ImagePush:
    """Request a push and run it once; return its row."""
    job = push(build, registry, credentials)
    run_job(job.id, PushWork)
    return one_row(ImagePush, id=job.push_id)


def digest_in(registry: Registry, row: ImagePush, tag: str) -> str | None:
    """Return the digest that the registry has under a tag."""
    path = row.image.partition("/")[2].rpartition(":")[0]
    with RegistryClient(address_of(registry), PUSHER) as client:
        return client.manifest_digest(path, tag)


def test_a_push_has_succeeded_when_the_registry_shows_it_under_both_tags(
    build: Build, registry: PrivateRegistry
) -> None:
    target = make_registry(registry.url, PUSHER)
    algorithm = one_row(Algorithm, id=build.algorithm_id)
    publish(algorithm)
    row = run_push(build, target)
    assert (row.state, row.last_success_digest) == (PushState.SUCCEEDED, row.digest)
    assert row.digest == digest_in(target, row, HASH) == digest_in(target, row, "0.0.1")
    assert str(row.digest) in str(row.message)


@pytest.mark.parametrize("about", ["", HASH, "0.0.1"])
@pytest.mark.parametrize("lie", ["gone", "other"])
def test_a_push_that_the_registry_does_not_show_has_not_succeeded(
    build: Build, registry: PrivateRegistry, lie: str, about: str
) -> None:
    publish(one_row(Algorithm, id=build.algorithm_id))
    with lying_proxy(registry.host) as proxy:
        proxy.says, proxy.about = lie, about
        row = run_push(build, make_registry(f"http://{proxy.host}", PUSHER))
    assert (row.state, row.digest, row.last_success_digest) == (PushState.QUEUED, None, None)
    assert proxy.host in row.message


def test_through_the_same_way_the_truth_succeeds(build: Build, registry: PrivateRegistry) -> None:
    with lying_proxy(registry.host) as proxy:
        row = run_push(build, make_registry(f"http://{proxy.host}", PUSHER))
    assert row.state == PushState.SUCCEEDED


def test_a_wrong_password_fails_and_the_last_good_push_stays(build: Build, registry: PrivateRegistry) -> None:
    target = make_registry(registry.url, PUSHER)
    good = run_push(build, target)
    row = run_push(build, target, Credentials("pusher", "wrong"))
    job = one_row(Job, id=row.job_id)
    assert (row.state, job.state, job.error_class) == (PushState.FAILED, JobState.FAILED, ErrorClass.AUTH)
    assert (row.digest, row.last_success_digest) == (None, good.digest)
    assert run_push(build, target).digest == good.digest


def test_an_account_for_pushes_is_used_where_the_recorded_one_may_only_pull(
    build: Build, token_registry: PrivateRegistry
) -> None:
    target = make_registry(token_registry.url, Credentials("reader", "reader-secret"))
    writer = Credentials("writer", "writer-secret")
    assert run_push(build, target).state == PushState.FAILED
    with database().writing() as session:
        own = CredentialsUpdate(writer)
        set_default(session, keyring(), DefaultLevel.ALGORITHM, build.algorithm_id, target.id, own)
    assert run_push(build, target).state == PushState.SUCCEEDED
    with database().writing() as session:
        remove_default(session, DefaultLevel.ALGORITHM, build.algorithm_id)
        row = find_registry(session, target.id, for_update=True)
        change_registry(session, keyring(), row, {}, CredentialsUpdate(), CredentialsUpdate(writer))
    assert run_push(build, target).state == PushState.SUCCEEDED


def with_the_registry(registry: Registry, row: ImagePush) -> dict[str, Any]:
    """Return the manifest that a registry has under the commit's tag."""
    path = row.image.partition("/")[2].rpartition(":")[0]
    with RegistryClient(address_of(registry), PUSHER) as client:
        content = client.manifest(path, HASH)
    assert content is not None
    document: dict[str, Any] = json.loads(content)
    return document


@DIRECT
def test_a_second_registry_gets_the_same_bytes_without_an_engine(
    build: Build, registry: PrivateRegistry, second_registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_push(build, make_registry(registry.url, PUSHER))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    target = make_registry(second_registry.url, PUSHER)
    second = run_push(build, target)
    assert (second.state, second.digest) == (PushState.SUCCEEDED, first.digest)
    assert second.message == f"The registry confirmed {first.digest} under {HASH}.", "nothing was pulled or built again"
    assert with_the_registry(target, second)["mediaType"] == "application/vnd.oci.image.manifest.v1+json"


@DIRECT
def test_with_a_home_registry_any_worker_pushes_what_another_one_brought_there(
    build: Build, registry: PrivateRegistry, second_registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_HOME_REGISTRY", f"{registry.url}/home-{uuid.uuid4().hex}")
    monkeypatch.setenv("LONGSHORE_HOME_REGISTRY_USERNAME", PUSHER.username)
    monkeypatch.setenv("LONGSHORE_HOME_REGISTRY_PASSWORD", PUSHER.password)
    settings.cache_clear()
    first = run_push(build, make_registry(registry.url, PUSHER))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    second = run_push(build, make_registry(second_registry.url, PUSHER))
    assert (second.state, second.digest) == (PushState.SUCCEEDED, first.digest)
    assert second.message == f"The registry confirmed {first.digest} under {HASH}.", "nothing was pulled or built again"
    assert not settings().store_dir.exists(), "nothing is on this machine's disk"


@DIRECT
def test_a_store_that_lost_the_image_pulls_it_from_a_registry_that_has_it(
    build: Build, registry: PrivateRegistry, second_registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_push(build, make_registry(registry.url, PUSHER))
    lose_store()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    second = run_push(build, make_registry(second_registry.url, PUSHER))
    assert (second.state, second.digest) == (PushState.SUCCEEDED, first.digest)
    assert f"The image was pulled from {registry.url}." in second.message


@DIRECT
def test_a_registry_that_has_the_very_bytes_comes_before_an_engine(
    build: Build, registry: PrivateRegistry, second_registry: PrivateRegistry
) -> None:
    """Rule 7: the engine compresses again, so its image would have another digest in the second registry."""
    first = run_push(build, make_registry(registry.url, PUSHER))
    lose_store()
    second = run_push(build, make_registry(second_registry.url, PUSHER))
    assert (second.state, second.digest) == (PushState.SUCCEEDED, first.digest)
    assert f"The image was pulled from {registry.url}." in second.message


@DIRECT
def test_a_registry_that_has_the_image_and_is_away_is_waited_for(
    build: Build, registry: PrivateRegistry, second_registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build may give another image, so nothing is built while a registry may still have it."""
    with lying_proxy(registry.host) as proxy:
        assert run_push(build, make_registry(f"http://{proxy.host}", PUSHER)).state == PushState.SUCCEEDED
        lose_store()
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        proxy.says = "slow down"
        waiting = run_push(build, make_registry(second_registry.url, PUSHER))
    assert waiting.state == PushState.QUEUED
    assert proxy.host in waiting.message


@DIRECT
def test_what_a_registry_has_needs_no_image(
    build: Build, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_registry(registry.url, PUSHER)
    first = run_push(build, target)
    lose_store()
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    again = run_push(build, target)
    assert (again.state, again.digest) == (PushState.SUCCEEDED, first.digest)
    assert again.message == f"The registry confirmed {first.digest} under {HASH}.", "nothing was pulled"


@DIRECT
def test_a_push_that_follows_another_asks_one_question(
    build: Build, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pooled client has a connection and a token, and its ping is recent enough."""
    monkeypatch.setattr(client_pool, "PING_TTL_SECONDS", 60)
    monkeypatch.setattr(client_pool, "MAX_IDLE_SECONDS", 60)
    with lying_proxy(registry.host) as proxy:
        target = make_registry(f"http://{proxy.host}", PUSHER)
        first = run_push(build, target)
        proxy.requests.clear()
        assert run_push(build, target).digest == first.digest
    path = first.image.partition("/")[2].rpartition(":")[0]
    assert proxy.requests == [f"GET /v2/{path}/manifests/{HASH}"]


@DIRECT
def test_what_one_push_was_let_in_with_lets_no_other_in(build: Build, registry: PrivateRegistry) -> None:
    target = make_registry(registry.url, PUSHER)
    run_push(build, target)
    row = run_push(build, target, Credentials("pusher", "wrong"))
    assert (row.state, one_row(Job, id=row.job_id).error_class) == (PushState.FAILED, ErrorClass.AUTH)


@DIRECT
def test_a_layer_that_a_registry_lost_is_sent_again_by_a_push_again(build: Build, registry: PrivateRegistry) -> None:
    target = make_registry(registry.url, PUSHER)
    row = run_push(build, target)
    layer = with_the_registry(target, row)["layers"][0]["digest"]
    path = row.image.partition("/")[2].rpartition(":")[0]
    with RegistryClient(address_of(target), PUSHER) as client:
        client.send("DELETE", f"/v2/{path}/blobs/{layer}", scope="")
        assert not client.blob_exists(path, layer)
        change(row, last_success_at=(row.last_success_at or 0) - TRUST_BLOBS_MS)
        assert run_push(build, target).state == PushState.SUCCEEDED
        assert client.blob_exists(path, layer)


@DIRECT
def test_a_push_that_is_over_leaves_the_builds_row_alone(
    build: Build, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 2: a slow push that locates the image does not overwrite what a newer one may have written."""
    job = push(build, make_registry(registry.url, PUSHER))
    saved = save_image

    def cancelled_meanwhile(*arguments: Any) -> Any:
        image = saved(*arguments)
        with database().writing() as session:
            cancel_job(session, session.get_one(Job, job.seq))
        return image

    monkeypatch.setattr(locate, "save_image", cancelled_meanwhile)
    run_job(job.id, PushWork)
    assert fresh(job).state == JobState.CANCELLED
    assert fresh(build).manifest_digest is None


def lose_store() -> None:
    shutil.rmtree(settings().store_dir)
    factory._layout.cache_clear()


@DIRECT
def test_where_a_registry_has_a_large_layer_is_remembered(
    docker_host: str, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    target = make_registry(registry.url, PUSHER)
    with large_build(docker_host) as large:
        pushed = run_push(large, target)
        assert pushed.state == PushState.SUCCEEDED
        layers = with_the_registry(target, pushed)["layers"]
        with database().reading() as session:
            known = known_blob_locations(session, target.id, [layer["digest"] for layer in layers])
    path = pushed.image.partition("/")[2].rpartition(":")[0]
    assert dict(known) == {layers[0]["digest"]: path}


def test_a_push_notices_that_it_was_cancelled_before_the_tag_moves(
    build: Build, registry: PrivateRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 2: the fence cannot reach into a registry, so it is checked before each tag is set."""
    job = push(build, make_registry(registry.url, PUSHER))
    held = Heartbeat.hold_for

    def cancelled_first(heartbeat: Heartbeat, seconds: float) -> None:
        with database().writing() as session:
            cancel_job(session, session.get_one(Job, job.seq))
        held(heartbeat, seconds)

    monkeypatch.setattr(Heartbeat, "hold_for", cancelled_first)
    run_job(job.id, PushWork)
    row = one_row(ImagePush, id=job.push_id)
    assert (row.state, fresh(job).state) == (PushState.CANCELLED, JobState.CANCELLED)
    assert digest_in(one_row(Registry, id=row.registry_id), row, HASH) is None
