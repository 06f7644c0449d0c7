"""The direct transport with the registry of distribution: passwords, tokens, TLS, and proxies."""

import base64
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.services.registry import PrivateRegistry
from shared.cancellation import CancelToken
from shared.net.connections import Proxy
from shared.registry.address import RegistryAddress
from shared.registry.client import RegistryClient
from shared.registry.credentials import Credentials
from tests.service.workers.forward_proxy import forward_proxy
from tests.unit.workers.images.images import add_image
from workers.images.home_registry import HomeRegistry
from workers.images.image_store import StoreUse
from workers.images.layout import LayoutStore
from workers.images.oci import Manifest
from workers.pushes.transports.direct import DirectTransport
from workers.pushes.transports.transport import PushedImage

MEBIBYTE = 1024 * 1024
WRITERS = {"registry": "pusher", "tls_registry": "pusher", "token_registry": "writer"}


@pytest.fixture
def use(tmp_path: Path) -> Iterator[StoreUse]:
    with LayoutStore(tmp_path / "images").use() as begun:
        yield begun


@pytest.fixture
def image(use: StoreUse) -> Manifest:
    return add_image(use, "a:1", os.urandom(3 * MEBIBYTE), os.urandom(1000), os.urandom(70_000))


def client_of(registry: PrivateRegistry, user: str, proxy: str | None = None) -> RegistryClient:
    return RegistryClient(
        RegistryAddress.parse(registry.url),
        Credentials(user, registry.users[user]),
        ca_certificate=registry.authority_pem,
        proxy=Proxy.parse(proxy) if proxy else None,
    )


def pushed(
    client: RegistryClient, image: Manifest, use: StoreUse, path: str, mount_from: str | None = None
) -> PushedImage:
    known = {layer.digest: mount_from for layer in image.layers} if mount_from else {}
    transport = DirectTransport(client, path, image, use, mount_from=known, stop=CancelToken())
    return transport.push(("1", "2"), before_tag=lambda _tag: None, on_progress=lambda _seen, _said: None)


def new_path() -> str:
    return f"team/{uuid.uuid4().hex}"


@pytest.mark.parametrize("kind", WRITERS)
def test_an_image_arrives_as_it_is(kind: str, request: pytest.FixtureRequest, image: Manifest, use: StoreUse) -> None:
    registry, path = request.getfixturevalue(kind), new_path()
    with client_of(registry, WRITERS[kind]) as client:
        assert pushed(client, image, use, path).digest == image.descriptor.digest
        assert client.manifest(path, "1") == client.manifest(path, "2") == image.content


@pytest.mark.parametrize("kind", WRITERS)
def test_layers_of_another_repository_are_mounted_and_not_sent(
    kind: str, request: pytest.FixtureRequest, image: Manifest, use: StoreUse
) -> None:
    registry, first = request.getfixturevalue(kind), new_path()
    with client_of(registry, WRITERS[kind]) as client:
        pushed(client, image, use, first)
        for layer in image.layers:
            use.forget(layer.digest)  # a missing blob cannot be sent
        second = new_path()
        assert pushed(client, image, use, second, mount_from=first).digest == image.descriptor.digest
        assert client.manifest(second, "2") == image.content


@pytest.mark.parametrize("kind", WRITERS)
def test_a_mount_from_where_nothing_is_becomes_an_upload(
    kind: str, request: pytest.FixtureRequest, image: Manifest, use: StoreUse
) -> None:
    registry, path = request.getfixturevalue(kind), new_path()
    with client_of(registry, WRITERS[kind]) as client:
        assert pushed(client, image, use, path, mount_from=new_path()).digest == image.descriptor.digest


@pytest.mark.parametrize("kind", ["registry", "tls_registry"])
def test_a_proxy_takes_the_push_there(
    kind: str, request: pytest.FixtureRequest, image: Manifest, use: StoreUse
) -> None:
    """Plain HTTP requests have absolute URLs; TLS goes through a tunnel, which cannot read it."""
    registry, path = request.getfixturevalue(kind), new_path()
    with forward_proxy() as proxy:
        with client_of(registry, "pusher", proxy=f"http://worker:p%40ss@{proxy.host}") as client:
            assert pushed(client, image, use, path).digest == image.descriptor.digest
        assert proxy.authorizations == {f"Basic {base64.b64encode(b'worker:p@ss').decode()}"}
        methods = {request.partition(" ")[0] for request in proxy.requests}
    assert methods == ({"CONNECT"} if kind == "tls_registry" else {"GET", "HEAD", "POST", "PATCH", "PUT"})
    assert all(registry.host in request for request in proxy.requests)


def test_a_home_registrys_bytes_go_on_to_another_registry(
    registry: PrivateRegistry, second_registry: PrivateRegistry
) -> None:
    home = HomeRegistry(RegistryAddress.parse(f"{registry.url}/{uuid.uuid4().hex}"), Credentials("pusher", "secret"))
    with home.use() as use:
        image = add_image(use, "a:1", os.urandom(3 * MEBIBYTE), os.urandom(1000))
    path = new_path()
    with home.use() as use, client_of(second_registry, "pusher") as client:
        assert pushed(client, image, use, path).digest == image.descriptor.digest
        assert client.manifest(path, "1") == image.content
