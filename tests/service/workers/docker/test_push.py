"""Pushes through a real engine to a real registry."""

import json
import threading
import urllib.request
import uuid
from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry
from shared.cancellation import CancelToken
from shared.errors import ErrorClass, WorkCancelledError, WorkError
from shared.pushes.progress import Progress
from shared.registry.address import RegistryAddress
from shared.registry.credentials import Credentials
from shared.settings import settings
from tests.service.workers.docker.holding_proxy import HoldingProxy
from workers.docker.connection import engine
from workers.docker.images import has_image, image_id_of
from workers.docker.push import pull_image, push_image
from workers.pushes.transports.engine import tls_refusal

DEADLINE = 60
"""Seconds after which a test fails."""


@pytest.fixture
def repository(registry: PrivateRegistry) -> str:
    return f"{registry.host}/owner/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def credentials(registry: PrivateRegistry) -> Credentials:
    return Credentials(*next(iter(registry.users.items())))


def ignore(progress: Progress) -> None:
    """Ignore the progress."""


def digest_in(registry: PrivateRegistry, credentials: Credentials, repository: str, tag: str) -> str | None:
    path = repository.partition("/")[2]
    request = urllib.request.Request(
        f"{registry.url}/v2/{path}/manifests/{tag}",
        method="HEAD",
        headers={
            "Authorization": credentials.basic,
            "Accept": "application/vnd.docker.distribution.manifest.v2+json",
        },
    )
    with urllib.request.urlopen(request) as answer:
        return str(answer.headers["Docker-Content-Digest"])


def test_what_was_pushed_is_what_the_registry_has(
    registry: PrivateRegistry, repository: str, credentials: Credentials, small_image: str
) -> None:
    seen: list[Progress] = []
    digest = push_image(small_image, repository, "one", credentials, on_progress=seen.append, stop=CancelToken())
    assert digest == digest_in(registry, credentials, repository, "one")
    assert seen[-1].layers_done == seen[-1].layers_total == 1
    assert seen[-1].done_bytes == seen[-1].total_bytes >= 8 * 1024 * 1024
    assert image_id_of(f"{repository}:one") is None, "the tag of the push is removed"
    assert has_image(small_image)

    again = push_image(small_image, repository, "two", credentials, on_progress=seen.append, stop=CancelToken())
    assert again == digest
    assert seen[-1] == Progress(0, 0, 1, 1), "a layer that exists is done, with no bytes"


def test_a_name_that_stood_there_before_goes_back(
    repository: str, credentials: Credentials, small_image: str, base_image: str
) -> None:
    engine().tag(base_image, repository, tag="one")
    push_image(small_image, repository, "one", credentials, on_progress=ignore, stop=CancelToken())
    assert image_id_of(f"{repository}:one") == image_id_of(base_image)
    engine().remove_image(f"{repository}:one")


@pytest.mark.parametrize("prefix", ["", "docker.io/library/", "index.docker.io/"])
def test_an_image_does_not_become_the_base_of_everybodys_builds(
    prefix: str, repository: str, credentials: Credentials, small_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGSHORE_BASE_IMAGE", f"{prefix}{repository}:one")
    settings.cache_clear()
    with pytest.raises(WorkError, match="is the name of a base image") as refused:
        push_image(small_image, repository, "one", credentials, on_progress=ignore, stop=CancelToken())
    assert refused.value.error_class is ErrorClass.INVALID
    assert image_id_of(f"{repository}:one") is None
    push_image(small_image, repository, "two", credentials, on_progress=ignore, stop=CancelToken())


def test_an_image_comes_back_by_its_digest(repository: str, credentials: Credentials, small_image: str) -> None:
    digest = push_image(small_image, repository, "one", credentials, on_progress=ignore, stop=CancelToken())
    engine().remove_image(small_image, force=True)
    assert not has_image(small_image)
    events: list[str] = []
    assert pull_image(repository, digest, credentials, on_event=events.append, stop=CancelToken()) == small_image
    assert has_image(small_image)
    assert any("complete" in event.lower() or "downloaded" in event.lower() for event in events), events


@pytest.mark.parametrize("wrong", [None, Credentials("pusher", "wrong-password")])
def test_refused_credentials_fail_as_such(repository: str, small_image: str, wrong: Credentials | None) -> None:
    with pytest.raises(WorkError) as caught:
        push_image(small_image, repository, "one", wrong, on_progress=ignore, stop=CancelToken())
    assert caught.value.error_class is ErrorClass.AUTH
    assert "wrong-password" not in caught.value.message
    with pytest.raises(WorkError) as caught:
        pull_image(repository, "sha256:" + "0" * 64, wrong, on_event=list[str]().append, stop=CancelToken())
    assert caught.value.error_class is ErrorClass.AUTH


def test_the_operators_own_passwords_are_not_used(
    registry: PrivateRegistry,
    repository: str,
    credentials: Credentials,
    small_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    auth = credentials.basic.removeprefix("Basic ")
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(WorkError) as caught:
        push_image(small_image, repository, "one", None, on_progress=ignore, stop=CancelToken())
    assert caught.value.error_class is ErrorClass.AUTH


def test_an_image_that_is_gone_is_not_found(repository: str, credentials: Credentials) -> None:
    with pytest.raises(WorkError) as caught:
        push_image("sha256:" + "0" * 64, repository, "one", credentials, on_progress=ignore, stop=CancelToken())
    assert caught.value.error_class is ErrorClass.NOT_FOUND


def test_a_manifest_that_is_gone_is_not_found(repository: str, credentials: Credentials) -> None:
    with pytest.raises(WorkError) as caught:
        pull_image(repository, "sha256:" + "0" * 64, credentials, on_event=list[str]().append, stop=CancelToken())
    assert caught.value.error_class is ErrorClass.NOT_FOUND


def test_a_stop_ends_a_push_in_the_middle_of_a_layer(
    holding_proxy: HoldingProxy, credentials: Credentials, small_image: str
) -> None:
    stop = CancelToken()
    repository = f"{holding_proxy.host}/owner/{uuid.uuid4().hex[:12]}"
    ended: list[BaseException] = []

    def push() -> None:
        try:
            push_image(small_image, repository, "one", credentials, on_progress=ignore, stop=stop)
        except WorkCancelledError as stopped:
            ended.append(stopped)

    pushing = threading.Thread(target=push)
    pushing.start()
    assert holding_proxy.stuck.wait(DEADLINE)
    stop.cancel("cancelled")
    pushing.join(DEADLINE)
    assert [(type(error), str(error)) for error in ended] == [(WorkCancelledError, "cancelled")]
    holding_proxy.resume()
    assert holding_proxy.hung_up.wait(DEADLINE), "the engine itself ended the upload"
    assert image_id_of(f"{repository}:one") is None


def test_a_stop_that_was_asked_for_before_pushes_nothing(
    repository: str, credentials: Credentials, small_image: str
) -> None:
    stop = CancelToken()
    stop.cancel("superseded")
    with pytest.raises(WorkCancelledError, match="superseded"):
        push_image(small_image, repository, "one", credentials, on_progress=ignore, stop=stop)


def test_an_engine_that_is_away_makes_the_job_wait(
    repository: str, small_image: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(WorkError, match="does not answer: No such file or directory; the job waits") as caught:
        push_image(small_image, repository, "one", None, on_progress=ignore, stop=CancelToken())
    assert caught.value.error_class is ErrorClass.UNAVAILABLE


@pytest.mark.parametrize(
    ("url", "verify_tls", "ca_certificate", "refused"),
    [
        ("registry.example.com", True, None, None),
        ("127.0.0.1:5000", False, None, None),
        ("http://127.0.0.1:5000", True, None, None),
        ("localhost:5000", False, None, None),
        ("192.0.2.7:5000", False, None, "skip the verification of TLS"),
        ("http://192.0.2.7:5000", True, None, "use plain HTTP"),
        ("no-such-host.invalid", False, None, "skip the verification of TLS"),
        (
            "registry.example.com",
            True,
            "-----BEGIN CERTIFICATE-----",
            "/etc/docker/certs.d/registry.example.com/ca.crt",
        ),
    ],
)
def test_what_the_engine_cannot_be_told_is_refused_in_a_sentence(
    url: str, verify_tls: bool, ca_certificate: str | None, refused: str | None
) -> None:
    refusal = tls_refusal(RegistryAddress.parse(url), verify_tls=verify_tls, ca_certificate=ca_certificate)
    assert refusal is None if refused is None else refused in str(refusal)
